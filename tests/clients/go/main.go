// connect-go in all three protocols: prints for each what it was answered, one JSON object per line. Usage: client ADDRESS WAITING DESCRIPTORS,
// where WAITING is a server that has no treemap yet.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const path = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap"

type result struct {
	Name     string    `json:"name"`
	Answers  [][][]any `json:"answers"`
	Version  string    `json:"version"`
	Refusal  []string  `json:"refusal"`
	Deadline string    `json:"deadline"`
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	address, waiting := os.Args[1], os.Args[2]
	bytes, err := os.ReadFile(os.Args[3])
	check(err)
	var set descriptorpb.FileDescriptorSet
	check(proto.Unmarshal(bytes, &set))
	files, err := protodesc.NewFiles(&set)
	check(err)
	described, err := files.FindDescriptorByName("shorts.v1alpha1.ShortedStocksService")
	check(err)
	method := described.(protoreflect.ServiceDescriptor).Methods().ByName("GetIndustryTreeMap")

	plain := &http.Client{}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	h2c := &http.Client{Transport: &http.Transport{Protocols: protocols, DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no TLS here")
	}, TLSClientConfig: &tls.Config{}}}
	for _, kind := range []struct {
		name    string
		client  *http.Client
		options []connect.ClientOption
	}{
		{"connect-go Connect, HTTP/1.1", plain, nil},
		{"connect-go Connect JSON, HTTP/2", h2c, []connect.ClientOption{connect.WithProtoJSON()}},
		{"connect-go Connect GET", plain, []connect.ClientOption{connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects)}},
		{"connect-go Connect, compressing", plain, []connect.ClientOption{connect.WithSendGzip()}},
		{"connect-go gRPC", h2c, []connect.ClientOption{connect.WithGRPC()}},
		{"connect-go gRPC, compressing", h2c, []connect.ClientOption{connect.WithGRPC(), connect.WithSendGzip()}},
		{"connect-go gRPC-Web", plain, []connect.ClientOption{connect.WithGRPCWeb()}},
	} {
		options := append(kind.options, connect.WithSchema(method), connect.WithResponseInitializer(
			func(spec connect.Spec, message any) error {
				if dynamic, ok := message.(*dynamicpb.Message); ok {
					*dynamic = *dynamicpb.NewMessage(method.Output())
				}
				return nil
			}))
		call := func(address, period string, limit int32, mode protoreflect.EnumNumber) (*connect.Response[dynamicpb.Message], error) {
			client := connect.NewClient[dynamicpb.Message, dynamicpb.Message](kind.client, "http://"+address+path, options...)
			timeout := 5 * time.Second
			if address == waiting {
				timeout = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			request := dynamicpb.NewMessage(method.Input())
			fields := method.Input().Fields()
			request.Set(fields.ByName("period"), protoreflect.ValueOfString(period))
			request.Set(fields.ByName("limit"), protoreflect.ValueOfInt32(limit))
			request.Set(fields.ByName("view_mode"), protoreflect.ValueOfEnum(mode))
			return client.CallUnary(ctx, connect.NewRequest(request))
		}
		all := result{Name: kind.name}
		for _, period := range []string{"3m", "6M", "1y", "2y", "5y", "max"} {
			for mode := range 2 {
				response, err := call(address, period, 10, protoreflect.EnumNumber(mode))
				check(err)
				rows := [][]any{}
				stocks := response.Msg.Get(method.Output().Fields().ByName("stocks")).List()
				for i := range stocks.Len() {
					stock := stocks.Get(i).Message()
					fields := stock.Descriptor().Fields()
					rows = append(rows, []any{
						stock.Get(fields.ByName("industry")).String(),
						stock.Get(fields.ByName("product_code")).String(),
						stock.Get(fields.ByName("short_position")).Float(),
					})
				}
				all.Answers = append(all.Answers, rows)
				all.Version = response.Header().Get("treemap-version")
			}
		}
		refused := func(err error) []string {
			var failure *connect.Error
			if errors.As(err, &failure) {
				return []string{failure.Code().String(), failure.Message()}
			}
			return []string{"ok", ""}
		}
		_, err := call(address, "3m", -1, 0)
		all.Refusal = refused(err)
		_, err = call(waiting, "3m", 1, 0)
		all.Deadline = refused(err)[0]
		check(json.NewEncoder(os.Stdout).Encode(all))
	}
}

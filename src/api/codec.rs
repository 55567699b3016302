//! How tonic's generated server would write an answer. Ours are framed by the protocols, by reference; the generated code that
//! `GetIndustryTreeMap` implements cannot be compiled without a codec.

use bytes::BufMut;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

use crate::{proto::shorts::v1alpha1::GetIndustryTreeMapRequest, treemap::model::Answer};

/// What tonic allocates at the start of a call: the answers that real traffic asks for (limit 8 and 10, 8 to 10 KB)
/// fit without growing it.
const BUFFER: usize = 12 * 1024;
/// tonic's own default, for streams. An answer is a single message.
const YIELD_THRESHOLD: usize = 32 * 1024;

/// Decodes the request with prost; encodes an [`Answer`] by copying.
#[derive(Debug, Default, Clone, Copy)]
pub struct AnswerCodec;

impl Codec for AnswerCodec {
    type Encode = Answer;
    type Decode = GetIndustryTreeMapRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<GetIndustryTreeMapRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for AnswerCodec {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        for slice in answer.proto() {
            buffer.put_slice(slice);
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD_THRESHOLD)
    }
}

use std::{io, process::ExitCode};

use clap::Command;

use super::definition;

/// Print the manual page, to be read with: treemap man | man -l -
#[derive(Debug, clap::Args)]
pub struct Man;

impl Man {
    /// Fails only if the page cannot be put together.
    pub fn run() -> anyhow::Result<ExitCode> {
        out!("{}", page()?);
        Ok(ExitCode::SUCCESS)
    }
}

/// One page for the command and all of its subcommands, each in a section of its own. It names the environment variables, and never
/// shows their values.
fn page() -> io::Result<String> {
    let mut command = definition().disable_help_subcommand(true);
    command.build();
    let man = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    for subcommand in command.get_subcommands() {
        section(subcommand, &mut page)?;
    }
    let mut version = Vec::new();
    man.render_version_section(&mut version)?;
    Ok(page + &String::from_utf8_lossy(&version))
}

/// Appends what the page of a subcommand would say, and then those of its own subcommands.
fn section(command: &Command, page: &mut String) -> io::Result<()> {
    // The options of all commands are at the head of the page.
    let own = command.clone().mut_args(|argument| {
        let everywhere = argument.is_global_set() || ["help", "version"].contains(&argument.get_id().as_str());
        if everywhere { argument.hide(true) } else { argument }
    });
    let man = clap_mangen::Man::new(own);
    let mut text = Vec::new();
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let text = String::from_utf8_lossy(&text).replace("\n.SH ", "\n.SS ");
    page.extend([".SH \"", name, "\"\n", &text]);
    for subcommand in command.get_subcommands() {
        section(subcommand, page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_section_for_every_command_and_names_its_settings() {
        let page = page().unwrap();
        for line in [
            ".SH NAME",
            ".SH \"treemap serve\"",
            ".SH \"treemap load\"",
            ".SH \"treemap load shorts\"",
            ".SH \"treemap man\"",
            ".SS SYNOPSIS",
            ".SH VERSION",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
        for setting in ["DATABASE_URL", "TREEMAP_LISTEN_ADDR", "TREEMAP_LOG"] {
            assert!(page.contains(&format!("\\fB{setting}\\fR")), "{setting}: {page}");
        }
        // Once, at the head.
        assert_eq!(page.matches("\\fBTREEMAP_LOG\\fR").count(), 1, "{page}");
    }
}

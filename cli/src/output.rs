//! What is printed, and in which form.

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::Write;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// As files are written.
    Yaml,
    /// For programs.
    Json,
}

/// Where answers go.
pub(crate) struct Output<'a> {
    out: &'a mut (dyn Write + Send),
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Output")
    }
}

impl<'a> Output<'a> {
    pub(crate) fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out }
    }

    /// Prints `text` as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// Prints one line.
    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// Prints rows under `header`, as wide as the terminal allows.
    pub(crate) fn table<const N: usize>(
        &mut self,
        header: [&str; N],
        rows: Vec<[String; N]>,
    ) -> Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(header);
        table.add_rows(rows);
        for line in table.to_string().lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Prints a document.
    pub(crate) fn document(&mut self, format: Format, document: &Value) -> Result<()> {
        match format {
            Format::Json => self.line(serde_json::to_string_pretty(document)?),
            Format::Yaml | Format::Table => {
                let yaml = serde_saphyr::to_string(document)?;
                self.text(&yaml)?;
                if yaml.ends_with('\n') { Ok(()) } else { self.text("\n") }
            }
        }
    }
}

//! Resources in files.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A resource as a user wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// Where it stands, for messages.
    pub(crate) place: String,
    pub(crate) kind: String,
    pub(crate) mesh: Option<String>,
    pub(crate) name: String,
    pub(crate) content: Value,
}

/// The resources of `source`: a file, the files of a folder ending in `.yaml`, `.yml` or `.json`,
/// or standard input for `-`.
pub(crate) fn read(source: &Path) -> Result<Vec<Document>> {
    if source.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("standard input")?;
        return parse("standard input", &text);
    }
    if !source.is_dir() {
        return file(source);
    }
    let entries = fs::read_dir(source).with_context(|| source.display().to_string())?;
    let mut files: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<_, io::Error>>()?;
    files.sort();
    let known = |file: &&PathBuf| {
        file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
    };
    let mut all = Vec::new();
    for path in files.iter().filter(known) {
        all.extend(file(path)?);
    }
    if all.is_empty() {
        bail!("{} has no resources", source.display());
    }
    Ok(all)
}

fn file(path: &Path) -> Result<Vec<Document>> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| name.clone())?;
    parse(&name, &text)
}

fn parse(place: &str, text: &str) -> Result<Vec<Document>> {
    let values: Vec<Value> =
        serde_saphyr::from_multiple(text).with_context(|| format!("{place} is not YAML"))?;
    let documents = values.into_iter().enumerate().filter(|(_, value)| !value.is_null());
    documents
        .map(|(i, content)| {
            let place = format!("{place}, document {}", i + 1);
            document(&place, content).with_context(|| place.clone())
        })
        .collect()
}

fn document(place: &str, content: Value) -> Result<Document> {
    let field = |name: &str| content.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Document {
        place: place.to_owned(),
        kind: field("type").context("type: is missing")?,
        mesh: field("mesh"),
        name: field("name").context("name: is missing")?,
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_hold_several_resources() {
        let text = "type: Mesh\nname: a\n---\ntype: MeshTimeout\nmesh: a\nname: b\nspec: {}\n";
        let found = parse("x.yaml", text).unwrap();
        let named: Vec<_> = found.iter().map(|d| (&*d.kind, d.mesh.as_deref(), &*d.name)).collect();
        assert_eq!(named, [("Mesh", None, "a"), ("MeshTimeout", Some("a"), "b")]);
        assert_eq!(found[1].place, "x.yaml, document 2");
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let error = parse("x.yaml", "type: Mesh\n").unwrap_err();
        assert_eq!(format!("{error:#}"), "x.yaml, document 1: name: is missing");
        assert!(format!("{:#}", parse("x.yaml", "a: [").unwrap_err()).contains("is not YAML"));
    }
}

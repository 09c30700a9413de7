//! Custom resource definitions: what Kubernetes has to know of our kinds, made of their types.
//!
//! They take every manifest that Kuma's take. What our types refuse beyond the form of a document
//! they refuse where one rule can say it about fields of one object, in a list at most: the API
//! server counts what a rule can cost, and in lists of lists without bounds no rule is cheap enough.
//! The rest is refused by those who read the resource.

use crate::{all, crd_schema::structural};
use resource::{CustomResource, Kind};
use serde_json::{Value, json};

/// The API group of every kind.
pub const GROUP: &str = "kuma.io";

/// The version of every kind in its API group.
pub const VERSION: &str = "v1alpha1";

/// A definition in YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The name of the definition, and so of the file it belongs in.
    pub name: String,
    /// The text, which can be put before or after others.
    pub yaml: String,
}

/// The definitions of all kinds that are custom resources, by name.
#[must_use]
pub fn manifests() -> Vec<Manifest> {
    let made = all().filter_map(|kind| {
        let definition = definition(&kind)?;
        let yaml = serde_saphyr::to_string(&definition).expect("a definition is plain JSON");
        let yaml = format!("# Made of the type of {kind:?} by `make gen`.\n---\n{yaml}");
        Some(Manifest { name: format!("{}.{GROUP}", kind.plural), yaml })
    });
    let mut made: Vec<Manifest> = made.collect();
    made.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    made
}

/// The definition of a kind; `None` for kinds that are no custom resources.
#[must_use]
pub fn definition(kind: &Kind) -> Option<Value> {
    let custom = kind.custom?;
    let short = Some(kind.short).filter(|short| !short.is_empty());
    let names = object([
        ("categories", Some(json!(["kuma"]))),
        ("kind", Some(kind.name.into())),
        ("listKind", Some(format!("{}List", kind.name).into())),
        ("plural", Some(kind.plural.into())),
        ("shortNames", short.map(|short| json!([short]))),
        ("singular", Some(kind.name.to_lowercase().into())),
    ]);
    let schema = schema(kind, custom);
    let version = object([
        ("additionalPrinterColumns", column(&schema).map(|column| json!([column]))),
        ("name", Some(VERSION.into())),
        ("schema", Some(json!({ "openAPIV3Schema": schema }))),
        ("served", Some(true.into())),
        ("storage", Some(true.into())),
    ]);
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{GROUP}", kind.plural) },
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": if custom.namespaced { "Namespaced" } else { "Cluster" },
            "versions": [version],
        },
    });
    definition.sort_all_objects();
    Some(definition)
}

/// An object of those of `fields` that there are.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields.into_iter().filter_map(|(name, field)| Some((name, field?))).collect()
}

/// The schema of whole objects of a kind.
fn schema(kind: &Kind, custom: CustomResource) -> Value {
    const STRUCTURAL: &str = "a test makes the definitions of all kinds";
    let text = json!({ "type": "string" });
    let mesh = json!({ "description": "The name of the mesh it belongs to.", "type": "string" });
    let content = if kind.inline {
        json!({ "x-kubernetes-preserve-unknown-fields": true })
    } else {
        structural(kind.schema().as_value(), custom.content).expect(STRUCTURAL)
    };
    // A status that stands within the spec has no place of its own.
    let has_status = kind.has_status && !kind.inline;
    let status = has_status
        .then(|| structural(kind.status_schema().as_value(), "status").expect(STRUCTURAL));
    let about = content.get("description").cloned();
    let fields = object([
        ("apiVersion", Some(text.clone())),
        ("kind", Some(text)),
        ("mesh", custom.names_mesh.then_some(mesh)),
        ("metadata", Some(json!({ "type": "object" }))),
        (custom.content, Some(content)),
        ("status", status),
    ]);
    object([("description", about), ("properties", Some(fields)), ("type", Some("object".into()))])
}

/// What is shown of an object in lists, beside its name.
fn column(schema: &Value) -> Option<Value> {
    let has = |path: &str| schema.pointer(path).is_some();
    let (name, path) = if has("/properties/spec/properties/targetRef") {
        ("TargetRef Kind", ".spec.targetRef.kind")
    } else if has("/properties/status/properties/addresses") {
        ("Hostname", ".status.addresses[0].hostname")
    } else {
        return None;
    };
    Some(json!({ "jsonPath": path, "name": name, "type": "string" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, fs, path::Path};

    /// `make gen` writes these files, by a variable.
    #[test]
    fn the_definitions_that_are_kept_are_those_of_the_types() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds"));
        let made = manifests().into_iter().map(|made| (format!("{}.yaml", made.name), made.yaml));
        let made: BTreeMap<String, String> = made.collect();
        if bless() {
            fs::remove_dir_all(folder).ok();
            fs::create_dir_all(folder).unwrap();
            made.iter().for_each(|(name, yaml)| fs::write(folder.join(name), yaml).unwrap());
        }
        let kept = fs::read_dir(folder).into_iter().flatten().map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        });
        let kept: BTreeMap<String, String> = kept.collect();
        let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&kept), names(&made), "run `make gen`");
        for (name, yaml) in &made {
            assert!(kept[name] == *yaml, "{name} is not what the types say: run `make gen`");
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test, and `make` says so by a variable")]
    fn bless() -> bool {
        std::env::var("BLESS").is_ok()
    }

    /// What is written in YAML is what was meant, also to readers of older YAML, to which some words
    /// without quotation marks are true or false.
    #[test]
    fn yaml_says_what_the_definition_says() {
        let mut said: BTreeMap<String, Value> = BTreeMap::new();
        for Manifest { name, yaml } in manifests() {
            for line in yaml.lines() {
                let word = line.rsplit(['-', ':']).next().unwrap().trim();
                let lower = word.to_lowercase();
                let ambiguous = ["y", "n", "yes", "no", "on", "off"].contains(&&*lower)
                    || ["true", "false"].contains(&&*lower) && word != lower;
                assert!(!ambiguous, "{name}: {line}");
            }
            said.insert(name, serde_saphyr::from_str(&yaml).unwrap());
        }
        let meant = all().filter_map(|kind| definition(&kind));
        let meant = meant.map(|made| (made["metadata"]["name"].as_str().unwrap().to_owned(), made));
        assert!(said == meant.collect());
    }

    /// Kind, plural, scope and abbreviation as Kuma 3 has them; none is written `-`.
    const NAMES: &str = include_str!("../testdata/crds.txt");

    #[test]
    fn the_definitions_have_the_names_of_the_field() {
        let mut found: Vec<String> = Vec::new();
        for kind in all() {
            let Some(definition) = definition(&kind) else { continue };
            let spec = &definition["spec"];
            let (names, version) = (&spec["names"], &spec["versions"][0]);
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let column = &version["additionalPrinterColumns"][0];
            found.push(format!(
                "{} {} {} {} {}",
                text(&names["kind"]),
                text(&names["plural"]),
                text(&spec["scope"]),
                text(&names["shortNames"][0]),
                text(&column["jsonPath"]),
            ));
            let plural = text(&names["plural"]);
            assert_eq!(definition["metadata"]["name"], format!("{plural}.kuma.io"));
            assert_eq!(spec["group"], "kuma.io");
            assert_eq!(names["categories"], json!(["kuma"]));
            assert_eq!(names["singular"], kind.name.to_lowercase());
            assert_eq!(version["name"], "v1alpha1");
            // Kuma's have none: it writes a status as it writes a spec.
            assert_eq!(version.get("subresources"), None);
        }
        found.sort_unstable();
        assert_eq!(found, NAMES.lines().collect::<Vec<_>>());
    }

    /// What stands beside `metadata` in kinds whose specs Kuma does not describe.
    #[test]
    fn specs_without_a_schema_are_kept_as_they_are() {
        let fields = |kind: Kind| {
            let definition = definition(&kind).unwrap();
            let fields = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut fields = fields["properties"].as_object().unwrap().clone();
            fields.retain(|name, _| !["apiVersion", "kind", "metadata"].contains(&&**name));
            fields.into_iter().collect::<Vec<_>>()
        };
        let free = json!({ "x-kubernetes-preserve-unknown-fields": true });
        for kind in all().filter(|kind| kind.inline && kind.custom.is_some()) {
            let content = if kind.name == "DataplaneInsight" { "status" } else { "spec" };
            let [(mesh, named), (found, schema)] = &fields(kind)[..] else { panic!("{kind:?}") };
            assert_eq!([&**mesh, &**found], ["mesh", content], "{kind:?}");
            assert_eq!((&named["type"], schema), (&json!("string"), &free), "{kind:?}");
        }
        let patch = fields(crate::container_patch::KIND);
        assert_eq!(patch.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["mesh", "spec"]);
    }
}

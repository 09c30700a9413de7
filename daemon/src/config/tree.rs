//! What was configured, before it is read into a program's types.

use super::{Config, Problems, parse};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The settings of a file and of the environment.
pub(super) struct Tree {
    root: Value,
    /// Which settings came from variables, for the messages.
    variables: BTreeMap<Vec<String>, Variable>,
}

struct Variable {
    name: String,
    /// What to try if the setting's type does not take the text as it is.
    otherwise: Option<Value>,
}

impl Tree {
    pub(super) fn of(root: Value) -> Self {
        Self { root, variables: BTreeMap::new() }
    }

    /// Removes what `default` does not have, and says so.
    pub(super) fn remove_unknown(&mut self, default: &Value, problems: &mut Problems) {
        match &mut self.root {
            Value::Object(settings) => prune(settings, default, problems),
            Value::Null => self.root = Value::Object(Map::new()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                problems.add("", "the file must hold settings, such as `log: {level: info}`");
                self.root = Value::Object(Map::new());
            }
        }
    }

    /// Sets what the environment says.
    pub(super) fn override_by(
        &mut self,
        env: impl IntoIterator<Item = (String, String)>,
        default: &Value,
        problems: &mut Problems,
    ) {
        let mut settings = BTreeMap::new();
        collect(default, &mut Vec::new(), &mut settings);
        let env: BTreeMap<String, String> =
            env.into_iter().filter(|(name, _)| name.starts_with("ATOLL_")).collect();
        // Kubernetes tells a pod of each service of its namespace, such as one named `atoll-zone-cp`.
        let links = env.keys().filter_map(|name| name.strip_suffix("SERVICE_HOST"));
        let links: Vec<String> = links.map(ToOwned::to_owned).collect();
        for (name, text) in env {
            let Some((path, default)) = settings.get(&name) else {
                if !links.iter().any(|link| name.starts_with(link)) {
                    problems.add(name, "no setting has this name");
                }
                continue;
            };
            match typed(text, default) {
                Ok((value, otherwise)) => {
                    set(&mut self.root, path, value);
                    self.variables.insert(path.clone(), Variable { name, otherwise });
                }
                Err(reason) => {
                    remove(&mut self.root, path);
                    problems.add(path.join("."), format_args!("{name}: {reason}"));
                }
            }
        }
    }

    /// Reads the settings. One that cannot be read is reported, and left at its default.
    pub(super) fn read<C: Config>(&mut self, problems: &mut Problems) -> C {
        loop {
            let error = match serde_path_to_error::deserialize::<_, C>(&self.root) {
                Ok(config) => return config,
                Err(error) => error,
            };
            let shown = error.path().to_string();
            let keys = keys(error.path());
            let Some(path) = removable(&self.root, &keys) else {
                problems.add("", error.into_inner());
                return C::default();
            };
            if let Some(variable) = self.variables.get_mut(&path) {
                if let Some(value) = variable.otherwise.take() {
                    set(&mut self.root, &path, value);
                    continue;
                }
                problems.add(shown, format_args!("{}: {}", variable.name, error.inner()));
            } else {
                problems.add(shown, error.inner());
            }
            remove(&mut self.root, &path);
        }
    }
}

/// A variable's text as the kind of value that the default is, and what to try second.
fn typed(text: String, default: &Value) -> Result<(Value, Option<Value>), String> {
    match default {
        Value::String(_) => Ok((Value::String(text), None)),
        // An option that is not set: only the type knows.
        Value::Null => {
            let otherwise = parse(&text).ok();
            Ok((Value::String(text), otherwise))
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            parse(&text).map(|value| (value, None)).map_err(|error| error.to_string())
        }
    }
}

fn prune(settings: &mut Map<String, Value>, default: &Value, problems: &mut Problems) {
    let Value::Object(default) = default else { return };
    settings.retain(|key, value| {
        let Some(default) = default.get(key) else {
            problems.add(key, "no such setting");
            return false;
        };
        match (value, default) {
            // A section of which everything is commented out.
            (Value::Null, Value::Object(_)) => false,
            // An empty default is a map, whose keys are free.
            (Value::Object(settings), Value::Object(known)) if !known.is_empty() => {
                problems.at(key, |problems| prune(settings, default, problems));
                true
            }
            _ => true,
        }
    });
}

/// The variable of each setting in `value`, with its path and its default.
fn collect<'a>(
    value: &'a Value,
    path: &mut Vec<String>,
    settings: &mut BTreeMap<String, (Vec<String>, &'a Value)>,
) {
    if let Value::Object(section) = value
        && (path.is_empty() || !section.is_empty())
    {
        for (key, value) in section {
            path.push(key.clone());
            collect(value, path, settings);
            path.pop();
        }
    } else {
        let previous = settings.insert(variable(path), (path.clone(), value));
        debug_assert!(previous.is_none(), "two settings have the variable {}", variable(path));
    }
}

fn variable(path: &[String]) -> String {
    let mut name = "ATOLL".to_owned();
    for key in path {
        name.push('_');
        for c in key.chars() {
            if c.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
    }
    name
}

fn set(root: &mut Value, path: &[String], value: Value) {
    let mut at = root;
    for key in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(section) = at else { return };
        at = section.entry(key).or_insert(Value::Null);
    }
    *at = value;
}

fn remove(root: &mut Value, path: &[String]) {
    let Some((last, sections)) = path.split_last() else { return };
    let mut at = root;
    for key in sections {
        let Some(next) = at.get_mut(key) else { return };
        at = next;
    }
    if let Value::Object(section) = at {
        section.remove(last);
    }
}

/// The keys of a path up to its first list: a list is taken out whole.
fn keys(path: &serde_path_to_error::Path) -> Vec<String> {
    path.iter()
        .map_while(|segment| match segment {
            serde_path_to_error::Segment::Map { key } => Some(key.clone()),
            serde_path_to_error::Segment::Seq { .. }
            | serde_path_to_error::Segment::Enum { .. }
            | serde_path_to_error::Segment::Unknown => None,
        })
        .collect()
}

/// The longest part of `keys` that the tree has.
fn removable(root: &Value, keys: &[String]) -> Option<Vec<String>> {
    let mut at = root;
    let mut found = Vec::new();
    for key in keys {
        let Some(next) = at.get(key) else { break };
        found.push(key.clone());
        at = next;
    }
    (!found.is_empty()).then_some(found)
}

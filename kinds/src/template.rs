//! The templates of host names and SPIFFE IDs: text with `{{ .Field }}` and `{{ label "key" }}`.
//!
//! The part of Go's template language that such names use. Whatever else stands between braces is
//! refused when the template is written, not when it is rendered.

use std::{fmt, str::FromStr};

/// A template that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
    Label(String),
}

/// Why a template was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidTemplate {
    /// Two braces open and do not close.
    #[error("unclosed action")]
    Unclosed,
    /// Something other than a field or a label.
    #[error("unknown action {0:?}: only {{{{ .Field }}}} and {{{{ label \"key\" }}}} are known")]
    Action(String),
}

/// Why a template could not be rendered.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotRendered {
    /// There is no such field.
    #[error("unknown field {0:?}")]
    Field(String),
    /// The resource has no such label.
    #[error("label {0:?} is missing")]
    Label(String),
}

/// What a template may say.
#[derive(Clone, Copy, Debug)]
pub struct Values<'v, F> {
    /// The fields by name.
    pub fields: &'v [(&'v str, &'v str)],
    /// A label's value by key.
    pub label: F,
}

impl FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let (mut parts, mut rest) = (Vec::new(), text);
        let mut trim = false;
        loop {
            let (before, after) = match rest.split_once("{{") {
                Some((before, after)) => (before, Some(after)),
                None => (rest, None),
            };
            let mut literal = if trim { before.trim_start() } else { before };
            let Some(after) = after else {
                push_text(&mut parts, literal);
                return Ok(Self(parts));
            };
            let (mut action, after) = after.split_once("}}").ok_or(InvalidTemplate::Unclosed)?;
            // A dash with a blank eats the blanks outside.
            if let Some(rest) = action.strip_prefix('-').filter(|rest| starts_blank(rest)) {
                (action, literal) = (rest, literal.trim_end());
            }
            trim = false;
            if let Some(rest) = action.strip_suffix('-').filter(|rest| ends_blank(rest)) {
                (action, trim) = (rest, true);
            }
            push_text(&mut parts, literal);
            parts.push(parse_action(action.trim())?);
            rest = after;
        }
    }
}

fn starts_blank(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_whitespace())
}

fn ends_blank(text: &str) -> bool {
    text.ends_with(|c: char| c.is_ascii_whitespace())
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
}

fn parse_action(action: &str) -> Result<Part, InvalidTemplate> {
    let unknown = || InvalidTemplate::Action(action.into());
    if let Some(field) = action.strip_prefix('.') {
        let ok = !field.is_empty() && field.bytes().all(|b| b.is_ascii_alphanumeric());
        return if ok { Ok(Part::Field(field.into())) } else { Err(unknown()) };
    }
    let argument = action.strip_prefix("label").filter(|rest| starts_blank(rest));
    let argument = argument.map(str::trim_start).ok_or_else(unknown)?;
    let key = ['"', '`'].iter().find_map(|quote| {
        argument.strip_prefix(*quote)?.strip_suffix(*quote).filter(|key| !key.contains(*quote))
    });
    // No label key has a backslash: what has one is an escape we do not know.
    let key = key.filter(|key| !key.is_empty() && !key.contains('\\')).ok_or_else(unknown)?;
    Ok(Part::Label(key.into()))
}

impl Template {
    /// Fills in `values`.
    pub fn render<'a, F>(&self, values: &Values<'_, F>) -> Result<String, NotRendered>
    where
        F: Fn(&str) -> Option<&'a str>,
    {
        let mut out = String::new();
        for part in &self.0 {
            out.push_str(match part {
                Part::Text(text) => text,
                Part::Field(field) => {
                    let value = values.fields.iter().find(|(name, _)| name == field);
                    let value = value.map(|(_, value)| *value);
                    value.ok_or_else(|| NotRendered::Field(field.clone()))?
                }
                Part::Label(key) => {
                    (values.label)(key).ok_or_else(|| NotRendered::Label(key.clone()))?
                }
            });
        }
        Ok(out)
    }

    /// Whether it says the field `name`.
    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Field(field) if field == name))
    }

    /// The keys of the labels that it says.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Label(key) => Some(&**key),
            Part::Text(_) | Part::Field(_) => None,
        })
    }
}

/// As it can be read again.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Field(field) => write!(f, "{{{{ .{field} }}}}")?,
                Part::Label(key) => write!(f, "{{{{ label \"{key}\" }}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(template: &str) -> String {
        let values = Values {
            fields: &[("DisplayName", "cart"), ("Zone", "east")],
            label: |key: &str| (key == "team").then_some("shop"),
        };
        match template.parse::<Template>() {
            Ok(template) => template.render(&values).unwrap_or_else(|error| error.to_string()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn fields_and_labels_are_filled_in() {
        for (template, rendered) in [
            ("{{ .DisplayName }}.svc.{{.Zone}}.mesh.local", "cart.svc.east.mesh.local"),
            (r#"{{ label "team" }}.{{label `team`}}"#, "shop.shop"),
            ("a {{- .Zone -}} b", "aeastb"),
            ("plain }}", "plain }}"),
            ("", ""),
            ("{{ .Nope }}", r#"unknown field "Nope""#),
            (r#"{{ label "nope" }}"#, r#"label "nope" is missing"#),
        ] {
            assert_eq!(render(template), rendered, "{template}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_when_read() {
        for template in [
            "{{ if .Zone }}",
            "{{ .Zone.Name }}",
            "{{ . }}",
            "{{ label }}",
            "{{ label team }}",
            "{{}}",
            r#"{{ label "a" "b" }}"#,
            r#"{{ label "a\"" }}"#,
            r#"{{ label "a" | printf }}"#,
        ] {
            let error = template.parse::<Template>().unwrap_err();
            assert!(matches!(error, InvalidTemplate::Action(_)), "{template}: {error}");
        }
        assert_eq!("{{ .Zone".parse::<Template>(), Err(InvalidTemplate::Unclosed));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[{} .a-z"`\\-]{0,24}"#) {
            if let Ok(template) = text.parse::<Template>() {
                prop_assert_eq!(template.to_string().parse(), Ok(template));
            }
        }
    }
}

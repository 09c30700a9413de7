//! Regular expressions, as Envoy takes them: the syntax of RE2.

use regex_syntax::Parser;
use resource::Violations;
use std::fmt;

/// How often RE2 repeats something at most.
const REPEATED: u32 = 1000;

/// Reports why `pattern` is no regular expression, if so.
pub(crate) fn check(path: impl fmt::Display, pattern: &str, violations: &mut Violations) {
    let reason = match spelled_out(pattern) {
        Err(reason) => reason,
        Ok(pattern) => match Parser::new().parse(&pattern) {
            Ok(_) => return,
            Err(regex_syntax::Error::Parse(error)) => error.kind().to_string(),
            Err(regex_syntax::Error::Translate(error)) => error.kind().to_string(),
            Err(error) => error.to_string(),
        },
    };
    violations.add(path, format_args!("must be a regular expression of RE2: {reason}"));
}

/// The same for our parser, which is stricter: to RE2 a brace that begins no repetition, and a
/// bracket within a class, mean themselves, and text may be quoted.
fn spelled_out(pattern: &str) -> Result<String, String> {
    let (mut out, mut rest, mut in_class) = (String::with_capacity(pattern.len()), pattern, false);
    while let Some(first) = rest.chars().next() {
        let after = rest.strip_prefix(first).unwrap_or_default();
        let taken = match first {
            '\\' if !in_class && after.starts_with('Q') => {
                let quoted = after.strip_prefix('Q').unwrap_or_default();
                let (text, end) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
                out.push_str(&regex_syntax::escape(text));
                rest = end;
                continue;
            }
            '\\' => escape(rest),
            '[' if in_class => match rest.split_once(":]").filter(|_| after.starts_with(':')) {
                Some((class, _)) => class.len() + ":]".len(),
                None => {
                    out.push('\\');
                    1
                }
            },
            '[' => {
                in_class = true;
                let negated = 1 + usize::from(after.starts_with('^'));
                out.push_str(rest.get(..negated).unwrap_or_default());
                rest = rest.get(negated..).unwrap_or_default();
                if let Some(end) = rest.strip_prefix(']') {
                    out.push_str(r"\]");
                    rest = end;
                }
                continue;
            }
            ']' => {
                in_class = false;
                1
            }
            '{' if !in_class => match repetition(after)? {
                Some(length) => 1 + length,
                None => {
                    out.push('\\');
                    1
                }
            },
            other => other.len_utf8(),
        };
        let (part, end) = rest.split_at_checked(taken).unwrap_or((rest, ""));
        out.push_str(part);
        rest = end;
    }
    Ok(out)
}

/// How long the escape is that `rest` begins with.
fn escape(rest: &str) -> usize {
    let mut chars = rest.chars();
    let marked = chars.nth(1);
    let short = 1 + marked.map_or(0, char::len_utf8);
    let braced = matches!(marked, Some('p' | 'P' | 'x')) && chars.next() == Some('{');
    match rest.find('}').filter(|_| braced) {
        Some(end) => end + 1,
        None => short,
    }
}

/// How long the repetition is whose brace stands before `after`; `None` if there is none.
fn repetition(after: &str) -> Result<Option<usize>, String> {
    let Some((inside, _)) = after.split_once('}') else { return Ok(None) };
    let (least, most) = inside.split_once(',').unwrap_or((inside, inside));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(least) || !(most.is_empty() || is_number(most)) {
        return Ok(None);
    }
    let within =
        |text: &str| text.is_empty() || text.parse().is_ok_and(|times: u32| times <= REPEATED);
    if within(least) && within(most) {
        Ok(Some(inside.len() + 1))
    } else {
        Err(format!("something is repeated more than {REPEATED} times"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(pattern: &str) -> Option<String> {
        let mut violations = Violations::default();
        check("value", pattern, &mut violations);
        violations.iter().next().map(ToString::to_string)
    }

    #[test]
    fn what_re2_takes_is_taken() {
        for pattern in [
            "",
            ".*",
            "a/$",
            r"^/v\d+/[^/]+$",
            "(?i)cart|web",
            "(?P<id>[a-z]{2,8})",
            "a{3}",
            "a{3,}",
            "/users/{id}",
            "a{,3}",
            "a{",
            "{}",
            "x}",
            r"\{a\}",
            r"\p{Greek}+",
            r"\pN",
            r"\x{10FFFF}",
            "[[:alpha:]_]+",
            "[[]",
            "[]a]",
            "[a{1001}]",
            "[^]a]",
            "[a{]",
            "[a[b]",
            r"[\]]",
            r"\Qa.b{[\E+",
            r"\Q(",
            "größe",
            "a{1000}",
        ] {
            assert_eq!(reason(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused_with_its_reason() {
        let prefix = "value: must be a regular expression of RE2: ";
        for (pattern, why) in [
            ("(a", "unclosed group"),
            ("a)", "unopened group"),
            ("[a", "unclosed character class"),
            ("*a", "repetition operator missing expression"),
            ("a{3,2}", "invalid repetition count range, the start must be <= the end"),
            ("a{1001}", "something is repeated more than 1000 times"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)", "look-around, including look-ahead and look-behind, is not supported"),
            (r"\p{Nothing}", "Unicode property not found"),
            (r"[\Qa\E]", "unrecognized escape sequence"),
            (r"a\", "incomplete escape sequence, reached end of pattern prematurely"),
        ] {
            assert_eq!(reason(pattern), Some(format!("{prefix}{why}")), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r"[\[\]{}()\\QEpx:^,0-9a-zß-]{0,24}") {
            reason(&text);
        }
    }
}

//! The names of the rows of a leaf, side by side: a search for a part of a name reads them in one
//! go, where the rows themselves lie all over the memory.

/// Names one after the other, without anything between.
#[derive(Debug)]
pub(crate) struct Names {
    text: Box<str>,
    ends: Box<[u32]>,
}

impl Names {
    /// `None` if they are longer than can be said.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for name in names {
            text.push_str(name);
            ends.push(u32::try_from(text.len()).ok()?);
        }
        Some(Self { text: text.into(), ends: ends.into() })
    }

    fn start(&self, at: usize) -> usize {
        let before = at.checked_sub(1).and_then(|before| self.ends.get(before));
        before.map_or(0, |end| *end as usize)
    }

    /// The first from `from` that contains `part`.
    pub(crate) fn find(&self, from: usize, part: &str) -> Option<usize> {
        // Also across two names, which then have it not.
        if !self.text.get(self.start(from)..)?.contains(part) {
            return None;
        }
        let mut start = self.start(from);
        let ends = self.ends.iter().enumerate().skip(from);
        for (at, end) in ends {
            let end = *end as usize;
            if self.text.get(start..end)?.contains(part) {
                return Some(at);
            }
            start = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_within_names_and_not_across_them() {
        let names = Names::of(["web-a", "b-cart", "", "web-b"].into_iter()).unwrap();
        let all = |part: &str| {
            let mut found = Vec::new();
            while let Some(at) = names.find(found.last().map_or(0, |last| last + 1), part) {
                found.push(at);
            }
            found
        };
        assert_eq!(all("web"), [0, 3]);
        assert_eq!(all("ab"), [0; 0]);
        assert_eq!(all("b"), [0, 1, 3]);
        assert_eq!(all(""), [0, 1, 2, 3]);
    }
}

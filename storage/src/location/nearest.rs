//! The nearest known word to one that is not known.

/// Gives the word of `known` that `word` was probably meant to be.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let by_distance = known
        .into_iter()
        .map(|known| (distance(word, known), known));
    let (distance, found) = by_distance.min()?;
    (distance <= word.len().max(found.len()) / 2).then_some(found)
}

/// Counts the insertions, deletions and replacements that make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let mut costs: Vec<usize> = (0..=b.chars().count()).collect();
    for (row, a) in a.chars().enumerate() {
        let mut diagonal = row;
        let mut left = row + 1;
        let Some((first, rest)) = costs.split_first_mut() else {
            return 0;
        };
        *first = left;
        for (cost, b) in rest.iter_mut().zip(b.chars()) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cost;
            left = replaced.min(left + 1).min(*cost + 1);
            *cost = left;
        }
    }
    costs.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_between_words() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_word_far_from_all_has_no_nearest() {
        let known = ["region", "endpoint"];
        assert_eq!(nearest("reigon", known), Some("region"));
        assert_eq!(nearest("zzzzzzzz", known), None);
        assert_eq!(nearest("x", []), None);
    }
}

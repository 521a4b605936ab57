//! Sets of entries of one roster, as bits.

/// A set of indices into the roster's nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntrySet {
    words: Vec<u64>,
}

impl EntrySet {
    pub(crate) fn full(length: usize) -> Self {
        let mut set = Self::default();
        for index in 0..length {
            set.insert(index);
        }
        set
    }

    pub(crate) fn insert(&mut self, index: usize) {
        if self.words.len() <= index / 64 {
            self.words.resize(index / 64 + 1, 0);
        }
        self.words[index / 64] |= 1 << (index % 64);
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.words
            .get(index / 64)
            .is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.words.len() * 64).filter(|index| self.contains(*index))
    }
}

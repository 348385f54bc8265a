//! Sets of nodes, by their index in the list: five thousand nodes are 625 bytes.

/// A set of small numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Puts one in.
    pub(super) fn insert(&mut self, n: usize) {
        let word = n / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (n % 64); // the word is there since the line above
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// What is in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, two)| one & two).collect())
    }

    /// Whether something is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(one, two)| one & two != 0)
    }

    /// What is in this one and not in the other.
    pub(super) fn without(&self, other: &Self) -> Self {
        let word = |(n, one): (usize, &u64)| one & !other.0.get(n).copied().unwrap_or(0);
        Self(self.0.iter().enumerate().map(word).collect())
    }

    /// Takes in all of the other.
    pub(super) fn add(&mut self, other: &Self) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (one, two) in self.0.iter_mut().zip(&other.0) {
            *one |= two;
        }
    }

    /// The members, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(n, word)| (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| n * 64 + bit))
    }
}

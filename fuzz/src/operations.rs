//! Bytes read as a program: whatever they are, they mean something.

/// Takes parts off the front; gives zeros at the end.
pub(crate) struct Program<'a>(pub(crate) &'a [u8]);

impl<'a> Program<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        match limit {
            0 | 1 => 0,
            _ => usize::from(self.byte()) % limit,
        }
    }

    /// Up to `limit` bytes, as many as the next byte says.
    pub(crate) fn some(&mut self, limit: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(limit).min(self.0.len());
        let (part, rest) = self.0.split_at(length);
        self.0 = rest;
        part
    }

    /// The bytes up to the next zero.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0);
        let (part, rest) = match end {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, &[][..]),
        };
        self.0 = rest;
        part
    }
}

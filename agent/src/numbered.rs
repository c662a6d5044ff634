//! A few things by their numbers, in the order in which they came. For the handful that there are at a time, a list is as quick as a
//! tree, and a tree would be in the program once more for every kind of thing.

/// Things by their numbers. Whoever puts them in never uses a number twice.
#[derive(Debug)]
pub(crate) struct Numbered<T>(Vec<(u64, T)>);

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Numbered<T> {
    pub(crate) fn insert(&mut self, number: u64, thing: T) {
        self.0.push((number, thing));
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place(number)?;
        self.0.get_mut(place).map(|(_, thing)| thing)
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.place(number)?;
        Some(self.0.remove(place).1)
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.0.iter().position(|(other, _)| *other == number)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.0.iter().map(|(number, thing)| (*number, thing))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, thing)| thing)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, thing)| thing)
    }

    pub(crate) fn into_numbers(self) -> impl Iterator<Item = u64> {
        self.0.into_iter().map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_found_by_their_numbers_and_stay_in_order() {
        let mut things = Numbered::default();
        for number in [3, 5, 9] {
            things.insert(number, number * 10);
        }
        assert_eq!(things.remove(5), Some(50));
        assert_eq!(things.remove(5), None);
        if let Some(thing) = things.get_mut(9) {
            *thing += 1;
        }
        assert_eq!(things.get_mut(5), None);
        assert_eq!(things.iter().collect::<Vec<_>>(), [(3, &30), (9, &91)]);
        things.values_mut().for_each(|thing| *thing += 1);
        assert_eq!(things.values().copied().collect::<Vec<_>>(), [31, 92]);
        assert_eq!(things.len(), 2);
        assert_eq!(things.into_numbers().collect::<Vec<_>>(), [3, 9]);
    }
}

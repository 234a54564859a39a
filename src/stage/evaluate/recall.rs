//! What was found out about requests, kept from batch to batch.
//!
//! Requests repeat: the same few users do the same few things to the same resources. What all conditions over columns
//! that repeat come to is worked out once for each *signature* (the values of those columns) and looked up from then on.
//! A signature gives the queries (of detections) that are still possible.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListArray, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::model::{Column, EventBatch};

/// Most signatures that are remembered of a kind; past it all are forgotten, so that no flood of names fills the memory.
const SIGNATURES_MAX: usize = 8_192;
/// Most answers that are remembered of conditions over several columns, all together.
const ANSWERS_MAX: usize = 65_536;

/// A set of queries by its number in [`Recall`].
pub(super) type ListId = u32;

/// What is known of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Number of the signature.
    pub signature: u32,
    /// The queries that are still possible.
    pub list: ListId,
}

/// Signatures of one kind.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    known: HashMap<Box<[u8]>, Verdict>,
}

impl Signatures {
    pub fn get(&self, key: &[u8]) -> Option<Verdict> {
        self.known.get(key).copied()
    }

    pub fn put(&mut self, key: Box<[u8]>, list: ListId) -> Verdict {
        let verdict = Verdict { signature: self.known.len() as u32, list };
        self.known.insert(key, verdict);
        verdict
    }
}

/// What one worker remembers.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// By condition: it failed on some row, so that its answers are not remembered.
    pub distrusted: Vec<bool>,
    pub requests: Signatures,
    pub actors: Signatures,
    pub remembered: Remembered,
    numbers: HashMap<Arc<[u32]>, ListId>,
    lists: Vec<Arc<[u32]>>,
}

impl Recall {
    fn new(conditions: usize) -> Recall {
        Recall { distrusted: vec![false; conditions], ..Recall::default() }
    }

    /// Forgets all answers; from now on those of `condition` are not remembered.
    pub fn distrust(&mut self, condition: usize) {
        let mut distrusted = std::mem::take(&mut self.distrusted);
        distrusted[condition] = true;
        *self = Recall { distrusted, ..Recall::default() };
    }

    /// Forgets all answers when there are too many.
    fn trim(&mut self) {
        let largest = self.requests.known.len().max(self.actors.known.len()).max(self.remembered.values());
        if largest > SIGNATURES_MAX || self.remembered.pairs > ANSWERS_MAX {
            *self = Recall { distrusted: std::mem::take(&mut self.distrusted), ..Recall::default() };
        }
    }

    /// The number of a set of queries.
    pub fn number(&mut self, list: &[u32]) -> ListId {
        if let Some(known) = self.numbers.get(list) {
            return *known;
        }
        let list: Arc<[u32]> = Arc::from(list);
        let number = self.lists.len() as ListId;
        self.lists.push(Arc::clone(&list));
        self.numbers.insert(list, number);
        number
    }

    /// The set of queries of a number.
    pub fn list(&self, number: ListId) -> &Arc<[u32]> {
        &self.lists[number as usize]
    }
}

/// Answers of conditions about values that come again and again.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// By column: numbers of its values.
    numbers: HashMap<Column, HashMap<Box<[u8]>, u32>>,
    /// By condition: its answers by the numbers of the values of its columns.
    answers: HashMap<usize, HashMap<Box<[u32]>, bool>>,
    /// The same for conditions over one column, whose numbers are indices.
    single: HashMap<usize, Vec<Option<bool>>>,
    /// Entries of `answers`.
    pairs: usize,
}

impl Remembered {
    /// Most values of a column.
    fn values(&self) -> usize {
        self.numbers.values().map(HashMap::len).max().unwrap_or(0)
    }

    /// By row: the number of the value of a column; none where the column is of a kind that is not remembered.
    pub fn number(&mut self, column: Column, array: &ArrayRef) -> Option<Vec<u32>> {
        let values = Values::of(array)?;
        let known = self.numbers.entry(column).or_default();
        let mut spelled = Vec::new();
        let mut number = |row: usize| {
            spelled.clear();
            values.spell(row, &mut spelled);
            if let Some(number) = known.get(spelled.as_slice()) {
                return *number;
            }
            let number = known.len() as u32;
            known.insert(spelled.as_slice().into(), number);
            number
        };
        let keys = match &values {
            Values::Text(keys, _) | Values::List(keys, _) => Some(*keys),
            _ => None,
        };
        let Some(keys) = keys else { return Some((0..array.len()).map(number).collect()) };
        // A value of the dictionary is spelled once.
        let mut by_key: Vec<Option<u32>> = Vec::new();
        let numbers = (0..array.len()).map(|row| {
            if keys.is_null(row) {
                return number(row);
            }
            let key = keys.value(row) as usize;
            if by_key.len() <= key {
                by_key.resize(key + 1, None);
            }
            *by_key[key].get_or_insert_with(|| number(row))
        });
        Some(numbers.collect())
    }

    /// What a condition says of these values, where that was asked before.
    pub fn answer(&self, condition: usize, values: &[u32]) -> Option<bool> {
        match values {
            [value] => *self.single.get(&condition)?.get(*value as usize)?,
            _ => self.answers.get(&condition)?.get(values).copied(),
        }
    }

    pub fn remember(&mut self, condition: usize, values: &[u32], answer: bool) {
        match values {
            [value] => {
                let known = self.single.entry(condition).or_default();
                let value = *value as usize;
                if known.len() <= value {
                    known.resize(value + 1, None);
                }
                known[value] = Some(answer);
            }
            _ => {
                self.answers.entry(condition).or_default().insert(values.into(), answer);
                self.pairs += 1;
            }
        }
    }
}

/// Recalls that no worker uses at the moment.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    idle: Mutex<Vec<Recall>>,
}

impl Recalls {
    /// What to work with for one batch.
    pub fn take(&self, conditions: usize) -> Recall {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut recall = idle.unwrap_or_else(|| Recall::new(conditions));
        recall.trim();
        recall
    }

    pub fn give_back(&self, recall: Recall) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(recall);
    }
}

/// One column of a batch, by what tells its values apart.
#[derive(Debug)]
enum Values<'b> {
    Text(&'b Int32Array, &'b StringArray),
    List(&'b Int32Array, &'b ListArray),
    Int(&'b Int64Array),
    Bool(&'b BooleanArray),
}

impl<'b> Values<'b> {
    fn of(array: &'b ArrayRef) -> Option<Values<'b>> {
        if let Some(dictionary) = array.as_dictionary_opt::<Int32Type>() {
            let keys = dictionary.keys();
            let texts = dictionary.values().as_string_opt::<i32>().map(|values| Values::Text(keys, values));
            return texts.or_else(|| Some(Values::List(keys, dictionary.values().as_list_opt::<i32>()?)));
        }
        let ints = array.as_primitive_opt::<Int64Type>().map(Values::Int);
        ints.or_else(|| array.as_boolean_opt().map(Values::Bool))
    }

    /// Numbers that are equal for two rows exactly where their values are.
    fn words(&self, rows: &[u32], out: &mut Vec<Vec<u64>>) {
        let nulls = match self {
            Values::Text(keys, _) | Values::List(keys, _) => keys.nulls(),
            Values::Int(values) => values.nulls(),
            Values::Bool(values) => values.nulls(),
        };
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        if let Some(nulls) = nulls {
            out.push(rows.iter().map(|row| u64::from(nulls.is_null(*row as usize))).collect());
        }
        let mut words: Vec<u64> = match self {
            Values::Text(keys, _) | Values::List(keys, _) => {
                let keys = keys.values();
                rows.iter().map(|row| keys[*row as usize] as u64).collect()
            }
            Values::Int(values) => {
                let values = values.values();
                rows.iter().map(|row| values[*row as usize] as u64).collect()
            }
            Values::Bool(values) => rows.iter().map(|row| u64::from(values.value(*row as usize))).collect(),
        };
        if let Some(nulls) = nulls {
            words.iter_mut().zip(rows).filter(|(_, row)| nulls.is_null(**row as usize)).for_each(|(word, _)| *word = 0);
        }
        out.push(words);
    }

    /// Writes the value of a row so that no two values are written alike.
    fn spell(&self, row: usize, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.push(1);
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        match self {
            Values::Text(keys, values) if keys.is_valid(row) => text(out, values.value(keys.value(row) as usize)),
            Values::List(keys, values) if keys.is_valid(row) => {
                let items = values.value(keys.value(row) as usize);
                out.push(1);
                out.extend_from_slice(&(items.len() as u32).to_le_bytes());
                if let Some(items) = items.as_string_opt::<i32>() {
                    items.iter().for_each(|item| match item {
                        Some(item) => text(out, item),
                        None => out.push(0),
                    });
                }
            }
            Values::Int(values) if values.is_valid(row) => {
                out.push(1);
                out.extend_from_slice(&values.value(row).to_le_bytes());
            }
            Values::Bool(values) if values.is_valid(row) => out.push(1 + u8::from(values.value(row))),
            _ => out.push(0),
        }
    }
}

/// Rows of a batch, grouped by the values of some columns.
#[derive(Debug)]
pub(super) struct Groups<'b> {
    values: Vec<Values<'b>>,
    /// By row of those that were grouped: its group.
    pub of: Vec<u32>,
    /// By group: place of its first row among those that were grouped.
    pub first: Vec<u32>,
}

impl<'b> Groups<'b> {
    /// Groups `rows` by the values of `columns`, and by a number that is known of each of them.
    pub fn of(batch: &'b EventBatch, columns: &[Column], rows: &[u32], numbers: Vec<u64>) -> Groups<'b> {
        let arrays = columns.iter().filter_map(|column| batch.column(*column));
        let values: Vec<Values<'b>> = arrays.filter_map(Values::of).collect();
        let mut words = vec![numbers];
        values.iter().for_each(|values| values.words(rows, &mut words));
        let hasher = DefaultHashBuilder::default();
        let mut table: HashTable<u32> = HashTable::new();
        let mut groups = Groups { values, of: Vec::with_capacity(rows.len()), first: Vec::new() };
        let mut hashes: Vec<u64> = Vec::new();
        let mut own = vec![0u64; words.len()];
        for place in 0..rows.len() {
            own.iter_mut().zip(&words).for_each(|(own, column)| *own = column[place]);
            let hash = hasher.hash_one(&own);
            let same = |group: &u32| {
                let first = groups.first[*group as usize] as usize;
                words.iter().zip(&own).all(|(column, own)| column[first] == *own)
            };
            let group = match table.find(hash, same) {
                Some(group) => *group,
                None => {
                    let group = groups.first.len() as u32;
                    groups.first.push(place as u32);
                    hashes.push(hash);
                    table.insert_unique(hash, group, |group| hashes[*group as usize]);
                    group
                }
            };
            groups.of.push(group);
        }
        groups
    }

    /// Writes the values of a row of the batch.
    pub fn spell(&self, row: usize, out: &mut Vec<u8>) {
        self.values.iter().for_each(|values| values.spell(row, out));
    }
}

//! Column builders that pad with nulls: a column that an event says nothing about costs that event nothing.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BooleanBuilder, DictionaryArray, Int32Array, Int32Builder, Int64Builder, ListArray,
    ListBuilder, StringArray, StringBuilder, StructBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields, Int32Type};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::json::{Cursor, JsonError, Raw, Text};
use crate::model::{Column, ColumnInfo, ColumnSet, Kind, Layout};

/// Gives equal byte strings the same small number.
#[derive(Debug, Default)]
pub(super) struct Interner {
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Interner {
    fn get(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    /// The number of `text`, and whether it is new.
    #[inline]
    pub fn intern(&mut self, text: &[u8]) -> (u32, bool) {
        let hash = self.hasher.hash_one(text);
        if let Some(&index) = self.table.find(hash, |&index| self.get(index) == text) {
            return (index, false);
        }
        let index = self.ends.len() as u32;
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
        let (ends, bytes, hasher) = (&self.ends, &self.bytes, &self.hasher);
        self.table.insert_unique(hash, index, |&index| {
            let start = if index == 0 { 0 } else { ends[index as usize - 1] };
            hasher.hash_one(&bytes[start..ends[index as usize]])
        });
        (index, true)
    }
}

/// Remembers what was worked out from a span of text that comes again and again (a user, an outcome).
#[derive(Debug)]
pub(super) struct SpanCache<V> {
    spans: Interner,
    values: Vec<V>,
}

impl<V> Default for SpanCache<V> {
    fn default() -> Self {
        SpanCache { spans: Interner::default(), values: Vec::new() }
    }
}

impl<V: Copy> SpanCache<V> {
    /// The value of `span`, or none where it must be worked out and [`SpanCache::put`].
    #[inline]
    pub fn get(&mut self, span: &[u8]) -> Option<V> {
        let (index, new) = self.spans.intern(span);
        if new { None } else { self.values.get(index as usize).copied() }
    }

    /// Stores the value of the span that [`SpanCache::get`] was just asked for in vain.
    pub fn put(&mut self, value: V) {
        self.values.push(value);
    }
}

/// Key of a null in a dictionary column.
pub(super) const NULL: i32 = -1;

/// Text whose values repeat.
#[derive(Debug, Default)]
pub(super) struct DictText {
    keys: Vec<i32>,
    values: Interner,
}

impl DictText {
    #[inline]
    pub fn key(&mut self, text: &[u8]) -> i32 {
        let (index, new) = self.values.intern(text);
        if new && std::str::from_utf8(text).is_err() {
            // Replace what is not UTF-8 in place of the value that was just stored.
            let clean = String::from_utf8_lossy(text).into_owned();
            return self.values.intern(clean.as_bytes()).0 as i32;
        }
        index as i32
    }

    #[inline]
    pub fn text_key(&mut self, text: Text<'_>) -> i32 {
        if text.is_plain() { self.key(text.raw()) } else { self.key(text.decode().as_bytes()) }
    }

    fn finish(self, rows: usize) -> ArrayRef {
        let mut values = StringBuilder::with_capacity(self.values.ends.len(), self.values.bytes.len());
        for index in 0..self.values.ends.len() {
            // Values that are not UTF-8 stay in the interner without a key that refers to them.
            values.append_value(std::str::from_utf8(self.values.get(index as u32)).unwrap_or_default());
        }
        dictionary(self.keys, rows, Arc::new(values.finish()))
    }
}

fn dictionary(mut keys: Vec<i32>, rows: usize, values: ArrayRef) -> ArrayRef {
    keys.resize(rows, NULL);
    let nulls = keys.contains(&NULL).then(|| keys.iter().map(|key| *key != NULL).collect::<NullBuffer>());
    if nulls.is_some() {
        keys.iter_mut().filter(|key| **key == NULL).for_each(|key| *key = 0);
    }
    let keys = Int32Array::new(ScalarBuffer::from(keys), nulls);
    // Every key came from the interner whose values these are.
    Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values).expect("keys are indices of the values"))
}

/// Lists of text whose whole value repeats, told apart by their JSON.
#[derive(Debug)]
pub(super) struct DictList {
    keys: Vec<i32>,
    spans: Interner,
    lists: ListBuilder<StringBuilder>,
    empty: Option<i32>,
}

impl Default for DictList {
    fn default() -> Self {
        DictList {
            keys: Vec::new(),
            spans: Interner::default(),
            lists: ListBuilder::new(StringBuilder::new()),
            empty: None,
        }
    }
}

impl DictList {
    #[inline]
    pub fn key(&mut self, list: Raw<'_>) -> i32 {
        let (index, new) = self.spans.intern(list.bytes());
        if new {
            let items = self.lists.values();
            // A broken list keeps the items before the break.
            let _shape: Result<bool, JsonError> = list.cursor().array(|cursor| {
                if let Some(text) = cursor.text()? {
                    items.append_value(text.decode());
                }
                Ok(())
            });
            self.lists.append(true);
        }
        index as i32
    }

    /// The key of the list without items.
    pub fn empty_key(&mut self) -> i32 {
        if let Some(key) = self.empty {
            return key;
        }
        let array = b"[]";
        let key = self.key(Cursor::new(array).raw().expect("it is a whole value"));
        self.empty = Some(key);
        key
    }

    fn finish(mut self, rows: usize) -> ArrayRef {
        dictionary(self.keys, rows, Arc::new(self.lists.finish()))
    }
}

/// One column in the making.
#[derive(Debug)]
enum Slot {
    /// Nobody reads this column.
    Absent,
    Dict(DictText),
    DictList(DictList),
    Text(StringBuilder),
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Time(TimestampMicrosecondBuilder),
    TextList(ListBuilder<StringBuilder>),
    IntList(ListBuilder<Int32Builder>),
    Structs(Structs),
}

/// `List<Struct>`, by hand because a struct's children are of many types.
#[derive(Debug)]
pub(super) struct Structs {
    offsets: Vec<i32>,
    valid: Vec<bool>,
    items: StructBuilder,
}

impl Structs {
    fn new(kind: Kind) -> Structs {
        Structs { offsets: vec![0], valid: Vec::new(), items: StructBuilder::from_fields(struct_fields(kind), 0) }
    }

    fn pad(&mut self, rows: usize) {
        let end = *self.offsets.last().unwrap_or(&0);
        self.offsets.resize(rows + 1, end);
        self.valid.resize(rows, false);
    }

    fn finish(mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        let items = self.items.finish();
        let field = Arc::new(Field::new("item", items.data_type().clone(), true));
        let nulls = NullBuffer::from(self.valid);
        Arc::new(ListArray::new(field, OffsetBuffer::new(self.offsets.into()), Arc::new(items), Some(nulls)))
    }
}

fn struct_fields(kind: Kind) -> Fields {
    match kind.data_type() {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => fields.clone(),
            _ => Fields::empty(),
        },
        _ => Fields::empty(),
    }
}

/// Every column of one batch in the making, indexed by [`Column`].
///
/// A `put_*` for a column that nobody reads does nothing. Rows that a column was not told about are null.
#[derive(Debug)]
pub(super) struct Columns {
    slots: Vec<Slot>,
    need: ColumnSet,
    /// The columns of bodies that somebody reads of this row.
    pub wanted: ColumnSet,
    /// Number of the row that is being written.
    pub row: usize,
}

macro_rules! put {
    ($name:ident, $slot:ident, $value:ty, $doc:literal) => {
        #[doc = $doc]
        #[inline]
        pub fn $name(&mut self, column: Column, value: $value) {
            if let Slot::$slot(builder) = &mut self.slots[column as usize] {
                if builder.len() < self.row {
                    builder.append_nulls(self.row - builder.len());
                }
                builder.append_value(value);
            }
        }
    };
}

impl Columns {
    /// Columns for about so many rows.
    pub fn new(need: ColumnSet, rows: usize) -> Columns {
        let slots = crate::model::COLUMNS.iter().map(|info| slot(info, need, rows)).collect();
        Columns { slots, need, wanted: need, row: 0 }
    }

    /// Whether somebody reads the column.
    #[inline]
    pub fn has(&self, column: Column) -> bool {
        self.need.contains(column)
    }

    /// Whether somebody reads this column of the body of this row.
    pub fn wants(&self, column: Column) -> bool {
        self.wanted.contains(column)
    }

    put!(put_bool, Bool, bool, "Sets a boolean of this row.");
    put!(put_int, Int, i64, "Sets an integer of this row.");
    put!(put_time, Time, i64, "Sets a time of this row, microseconds since the epoch.");
    put!(put_str, Text, &str, "Sets a text of this row.");

    /// Sets a text of this row, in either layout.
    #[inline]
    pub fn put_text(&mut self, column: Column, text: Option<Text<'_>>) {
        let Some(text) = text else { return };
        match &mut self.slots[column as usize] {
            Slot::Text(_) => self.put_str(column, &text.decode()),
            Slot::Dict(dict) => {
                let key = dict.text_key(text);
                self.put_key(column, key);
            }
            _ => {}
        }
    }

    /// The key that a text has in a dictionary column; [`NULL`] where nobody reads the column.
    #[inline]
    pub fn key(&mut self, column: Column, text: Option<Text<'_>>) -> i32 {
        match (&mut self.slots[column as usize], text) {
            (Slot::Dict(dict), Some(text)) => dict.text_key(text),
            _ => NULL,
        }
    }

    /// As [`Columns::key`] for text that is not JSON.
    #[inline]
    pub fn str_key(&mut self, column: Column, text: &str) -> i32 {
        match &mut self.slots[column as usize] {
            Slot::Dict(dict) => dict.key(text.as_bytes()),
            _ => NULL,
        }
    }

    /// The key that a JSON list has in a dictionary column of lists.
    pub fn list_key(&mut self, column: Column, list: Raw<'_>) -> i32 {
        match &mut self.slots[column as usize] {
            Slot::DictList(dict) => dict.key(list),
            _ => NULL,
        }
    }

    /// The key of the empty list.
    pub fn empty_list_key(&mut self, column: Column) -> i32 {
        match &mut self.slots[column as usize] {
            Slot::DictList(dict) => dict.empty_key(),
            _ => NULL,
        }
    }

    /// Sets this row of a dictionary column to the value of a key.
    #[inline]
    pub fn put_key(&mut self, column: Column, key: i32) {
        let keys = match &mut self.slots[column as usize] {
            Slot::Dict(dict) => &mut dict.keys,
            Slot::DictList(dict) => &mut dict.keys,
            _ => return,
        };
        if keys.len() < self.row {
            keys.resize(self.row, NULL);
        }
        keys.push(key);
    }

    /// Key of this row in a dictionary column, where somebody reads the column.
    #[inline]
    pub fn key_of_row(&self, column: Column) -> Option<i32> {
        match &self.slots[column as usize] {
            Slot::Dict(dict) => Some(dict.keys.get(self.row).copied().unwrap_or(NULL)),
            _ => None,
        }
    }

    /// Sets a list of text of this row.
    pub fn put_texts<S: AsRef<str>>(&mut self, column: Column, items: impl IntoIterator<Item = S>) {
        if let Slot::TextList(list) = &mut self.slots[column as usize] {
            if list.len() < self.row {
                list.append_nulls(self.row - list.len());
            }
            items.into_iter().for_each(|item| list.values().append_value(item));
            list.append(true);
        }
    }

    /// Sets a list of integers of this row.
    pub fn put_ints(&mut self, column: Column, items: impl IntoIterator<Item = i32>) {
        if let Slot::IntList(list) = &mut self.slots[column as usize] {
            if list.len() < self.row {
                list.append_nulls(self.row - list.len());
            }
            items.into_iter().for_each(|item| list.values().append_value(item));
            list.append(true);
        }
    }

    /// Sets a list of structs of this row: `fill` appends one item for each of `items`.
    pub fn put_structs<T>(&mut self, column: Column, items: &[T], mut fill: impl FnMut(&mut StructWriter<'_>, &T)) {
        if !self.wants(column) {
            return;
        }
        if let Slot::Structs(structs) = &mut self.slots[column as usize] {
            structs.pad(self.row);
            for item in items {
                let mut writer = StructWriter { builder: &mut structs.items, next: 0 };
                fill(&mut writer, item);
                structs.items.append(true);
            }
            structs.offsets.push(structs.items.len() as i32);
            structs.valid.push(true);
        }
    }

    /// The finished columns that somebody reads, in table order.
    pub fn finish(self, rows: usize) -> Vec<(Column, ArrayRef)> {
        let slots = self.slots.into_iter().zip(crate::model::COLUMNS);
        slots.filter_map(|(slot, info)| Some((info.column, finish(slot, rows)?))).collect()
    }
}

fn slot(info: &ColumnInfo, need: ColumnSet, rows: usize) -> Slot {
    if !need.contains(info.column) {
        return Slot::Absent;
    }
    match (info.kind, info.layout) {
        (Kind::Text | Kind::Json, Layout::Dictionary) => {
            Slot::Dict(DictText { keys: Vec::with_capacity(rows), values: Interner::default() })
        }
        // Most are names and paths.
        (Kind::Text, Layout::Plain) => Slot::Text(StringBuilder::with_capacity(rows, rows * 40)),
        (Kind::Json, Layout::Plain) => Slot::Text(StringBuilder::new()),
        (Kind::TextList, Layout::Dictionary) => {
            Slot::DictList(DictList { keys: Vec::with_capacity(rows), ..DictList::default() })
        }
        (Kind::TextList, Layout::Plain) => Slot::TextList(ListBuilder::new(StringBuilder::new())),
        (Kind::IntList, _) => Slot::IntList(ListBuilder::new(Int32Builder::new())),
        (Kind::Bool, _) => Slot::Bool(BooleanBuilder::with_capacity(rows)),
        (Kind::Int, _) => Slot::Int(Int64Builder::with_capacity(rows)),
        (Kind::Time, _) => Slot::Time(TimestampMicrosecondBuilder::with_capacity(rows)),
        (kind @ (Kind::Containers | Kind::Volumes | Kind::Subjects | Kind::Rules), _) => {
            Slot::Structs(Structs::new(kind))
        }
    }
}

fn finish(slot: Slot, rows: usize) -> Option<ArrayRef> {
    macro_rules! padded {
        ($builder:expr) => {{
            let mut builder = $builder;
            builder.append_nulls(rows - builder.len());
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    Some(match slot {
        Slot::Absent => return None,
        Slot::Dict(dict) => dict.finish(rows),
        Slot::DictList(dict) => dict.finish(rows),
        Slot::Text(builder) => padded!(builder),
        Slot::Bool(builder) => padded!(builder),
        Slot::Int(builder) => padded!(builder),
        Slot::Time(builder) => {
            let mut builder = builder;
            builder.append_nulls(rows - builder.len());
            Arc::new(builder.finish().with_timezone("UTC"))
        }
        Slot::TextList(builder) => padded!(builder),
        Slot::IntList(builder) => padded!(builder),
        Slot::Structs(structs) => structs.finish(rows),
    })
}

/// Writes the fields of one struct in the order of their declaration.
#[derive(Debug)]
pub(super) struct StructWriter<'a> {
    builder: &'a mut StructBuilder,
    next: usize,
}

impl StructWriter<'_> {
    fn child<B: ArrayBuilder>(&mut self) -> &mut B {
        let index = self.next;
        self.next += 1;
        self.builder.field_builder::<B>(index).expect("fields are written in declared order and type")
    }

    pub fn text(&mut self, text: Option<impl AsRef<str>>) {
        self.child::<StringBuilder>().append_option(text);
    }

    pub fn boolean(&mut self, value: Option<bool>) {
        self.child::<BooleanBuilder>().append_option(value);
    }

    pub fn integer(&mut self, value: Option<i64>) {
        self.child::<Int64Builder>().append_option(value);
    }

    pub fn texts<S: AsRef<str>>(&mut self, items: impl IntoIterator<Item = S>) {
        let list = self.child::<ListBuilder<Box<dyn ArrayBuilder>>>();
        let values = list.values().as_any_mut().downcast_mut::<StringBuilder>().expect("a list of text");
        items.into_iter().for_each(|item| values.append_value(item));
        list.append(true);
    }

    pub fn ints(&mut self, items: impl IntoIterator<Item = i32>) {
        let list = self.child::<ListBuilder<Box<dyn ArrayBuilder>>>();
        let values = list.values().as_any_mut().downcast_mut::<Int32Builder>().expect("a list of integers");
        items.into_iter().for_each(|item| values.append_value(item));
        list.append(true);
    }
}

/// The plain text values of a dictionary column, by key; for tests and look-ups.
pub fn dictionary_values(array: &dyn Array) -> Option<&StringArray> {
    use arrow::array::AsArray;
    array.as_any_dictionary_opt().and_then(|dict| dict.values().as_string_opt::<i32>())
}

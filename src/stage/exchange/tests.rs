use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::*;
use crate::model::{KeptRows, Match};

fn known() -> Vec<(Arc<str>, Option<String>)> {
    vec![("one".into(), Some("m1".to_owned())), ("plain".into(), None), ("two".into(), Some("m2".to_owned()))]
}

fn found(detection: usize, step: usize, row: usize) -> Match {
    Match { detection, step, row, computed: vec![("n".into(), json!(row)), ("x".into(), json!(null))] }
}

/// Rows of clusters a and b in turn.
fn kept(count: usize) -> KeptMatches {
    let times: TimestampMicrosecondArray = (0..count as i64).map(Some).collect();
    let clusters: StringArray = (0..count).map(|row| Some(["a", "b"][row % 2])).collect();
    let codes: Int64Array = (0..count).map(|row| (row % 3 != 0).then_some(row as i64)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_time", Arc::new(times.with_timezone("UTC"))),
        ("cluster_id", Arc::new(clusters)),
        ("response_code", Arc::new(codes)),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("of one length");
    let arrival_ms = (0..count).map(|row| (row % 2 == 0).then_some(row as i64)).collect();
    let matches = (0..count).flat_map(|row| [found(0, 0, row), found(2, 1, row)]).collect();
    KeptMatches { rows: KeptRows { rows, arrival_ms }, matches }
}

fn rows(kept: KeptMatches) -> Rows {
    let next = BTreeMap::from([("audit".to_owned(), BTreeMap::from([("audit/3".to_owned(), 9)]))]);
    Rows { of: Of::Events, cluster_id: "a".into(), oldest_us: -5, next, is_last: true, kept, unknown: 0 }
}

fn told(kept: &KeptMatches) -> Vec<(usize, usize, usize, String)> {
    kept.matches.iter().map(|one| (one.row, one.detection, one.step, format!("{:?}", one.computed))).collect()
}

fn decoded(bytes: &[u8], known: &Known) -> Box<Rows> {
    match decode(bytes, &numbers(known)).expect("it is whole") {
        Sent::Rows(rows) => rows,
        Sent::Tide(tide) => panic!("a tide: {tide:?}"),
    }
}

#[test]
fn rows_come_as_they_went() {
    let sent = rows(kept(5));
    let bytes = encode_rows(&sent, &known()).expect("it has a form");
    let came = decoded(&bytes, &known());
    assert_eq!(came.kept.rows.rows, sent.kept.rows.rows);
    assert_eq!(came.kept.rows.arrival_ms, sent.kept.rows.arrival_ms);
    assert_eq!(told(&came.kept), told(&sent.kept));
    assert_eq!((&*came.cluster_id, came.oldest_us, came.is_last, came.unknown), ("a", -5, true, 0));
    assert_eq!(came.next, sent.next);
}

#[test]
fn detections_are_told_by_id_and_meaning() {
    let bytes = encode_rows(&rows(kept(2)), &known()).expect("it has a form");
    let other: Vec<(Arc<str>, Option<String>)> =
        vec![("two".into(), Some("m2".to_owned())), ("one".into(), Some("edited".to_owned()))];
    let came = decoded(&bytes, &other);
    assert_eq!(came.unknown, 2, "one means something else here");
    assert_eq!(came.kept.matches.iter().map(|one| (one.row, one.detection)).collect::<Vec<_>>(), [(0, 0), (1, 0)]);
}

#[test]
fn a_tide_comes_as_it_went() {
    let lane = LaneTide {
        source: "audit".to_owned(),
        lane: "audit/0".to_owned(),
        next: Some(7),
        newest_us: Some(-1),
        current: true,
        clusters: BTreeMap::from([("a".to_owned(), (i64::MIN, i64::MAX))]),
    };
    let silent = LaneTide { next: None, newest_us: None, clusters: BTreeMap::new(), ..lane.clone() };
    let all = BTreeMap::from([("audit".to_owned(), vec!["audit/0".to_owned(), "audit/1".to_owned()])]);
    let tide = Tide { lanes: vec![lane, silent], all };
    match decode(&encode_tide(&tide), &Numbers::new()) {
        Ok(Sent::Tide(came)) => assert_eq!(came, tide),
        other => panic!("{other:?}"),
    }
}

/// A record of this content whose hash fits.
fn sealed(content: &[u8]) -> Vec<u8> {
    [b"KTX1", &crate::model::first_half(blake3::hash(content))[..], content].concat()
}

#[test]
fn what_is_broken_is_an_error_that_says_how() {
    let (known, names) = (known(), numbers(&known()));
    for (bytes, part) in [
        (Vec::new(), "not a record of an exchange"),
        (br#"{"kind":"Event"}"#.to_vec(), "not a record of an exchange"),
        (b"KTX2".to_vec(), "another version"),
        (b"KTX1\x01".to_vec(), "ends in its mark"),
        (sealed(b"\x01"), "ends in its head"),
        (sealed(b"\xff\xff\xff\xff{}"), "ends in its head"),
        (sealed(b"\x02\0\0\0{}"), "its head"),
        (sealed(b"\x1a\0\0\0{\"tide\":{\"lanes\":[],\"all\":{}}}more"), "its head"),
    ] {
        let error = decode(&bytes, &names).expect_err(part);
        assert!(error.contains(part), "{part}: {error}");
    }
    let tide = encode_tide(&Tide::default());
    let longer = sealed(&[&tide[20..], b"more"].concat());
    assert_eq!(decode(&longer, &names).expect_err("too long"), "a tide has no rows");
    let mut strange = rows(kept(2));
    strange.kept.matches.push(found(0, 0, 2));
    let strange = encode_rows(&strange, &known).expect("it has a form");
    assert!(decode(&strange, &names).expect_err("no such row").contains("row 2 and there are 2"));
}

#[test]
fn wherever_a_record_is_cut_or_changed_it_is_an_error() {
    let names = numbers(&known());
    for bytes in [encode_tide(&Tide::default()), encode_rows(&rows(kept(4)), &known()).expect("it has a form")] {
        assert!(decode(&bytes, &names).is_ok());
        for place in 0..bytes.len() {
            assert!(decode(&bytes[..place], &names).is_err(), "cut at {place}");
            let mut changed = bytes.clone();
            changed[place] ^= 0x55;
            assert!(decode(&changed, &names).is_err(), "changed at {place}");
        }
    }
}

#[test]
fn columns_that_are_none_of_the_table_are_refused() {
    let names = numbers(&known());
    let send = |name: &str, column: ArrayRef| {
        let batch = RecordBatch::try_from_iter([(name, column)]).expect("one column");
        let kept = KeptMatches { rows: KeptRows { rows: batch, arrival_ms: vec![None] }, matches: Vec::new() };
        let bytes = encode_rows(&rows(kept), &known()).expect("it has a form");
        decode(&bytes, &names).map(drop)
    };
    assert_eq!(send("verb", Arc::new(StringArray::from(vec!["get"]))), Ok(()));
    assert!(send("verb", Arc::new(Int64Array::from(vec![1]))).expect_err("a number").contains("column verb"));
    assert!(send("werb", Arc::new(StringArray::from(vec!["get"]))).expect_err("unknown").contains("column werb"));
}

#[test]
fn rows_are_divided_and_nothing_is_lost() {
    let whole = kept(7);
    let parts = by_cluster(&whole);
    assert_eq!(parts.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((parts["a"].rows.rows.num_rows(), parts["b"].rows.rows.num_rows()), (4, 3));
    for (offset, name) in ["a", "b"].iter().enumerate() {
        for one in &parts[*name].matches {
            assert_eq!(one.computed[0].1, json!(one.row * 2 + offset), "each goes with its row");
        }
        assert_eq!(parts[*name].matches.len(), parts[*name].rows.rows.num_rows() * 2);
    }
    let [first, second] = halves(&parts["a"]).expect("there are four");
    assert_eq!((first.rows.rows.num_rows(), second.rows.rows.num_rows()), (2, 2));
    assert_eq!((first.matches.len(), second.matches.len()), (4, 4));
    assert!(halves(&first).and_then(|[one, _]| halves(&one)).is_none());
}

#[test]
fn a_cluster_has_one_partition_for_ever() {
    // State lies by it: another number is another owner.
    assert_eq!(partition_of("prod", 16), 9);
    let counts = (0..1_000).fold([0; 16], |mut counts, n| {
        counts[partition_of(&format!("cluster-{n}"), 16) as usize] += 1;
        counts
    });
    assert!(counts.iter().all(|count| (30..100).contains(count)), "{counts:?}");
    assert_eq!(partition_of("prod", 1), 0);
    assert_eq!(partition_of("prod", 0), 0);
}

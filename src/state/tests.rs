//! Epochs on a real directory: what is saved comes back, whatever was cut, lost or changed in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};

use super::*;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("a scratch folder") }
    }

    fn store(&self) -> StateStore {
        StateStore::open(self.folder.path().to_str().expect("UTF-8")).expect("a store")
    }

    async fn claim(&self) -> (Keeper, Image) {
        Keeper::claim(self.store(), versions()).await.expect("claimed")
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder.path().join(folder)) else { return Vec::new() };
        let files = entries.flatten().filter(|entry| entry.path().is_file());
        let mut names: Vec<String> = files.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    fn manifest(&self, epoch: u64) -> PathBuf {
        self.folder.path().join(Manifest::name(epoch))
    }

    fn read(&self, epoch: u64) -> Manifest {
        Manifest::open(&std::fs::read(self.manifest(epoch)).expect("readable")).expect("whole")
    }

    fn object_of(&self, epoch: u64, detection: &str) -> PathBuf {
        let manifest = self.read(epoch);
        let part = manifest.parts.iter().find(|part| part.key.name() == detection).expect("it is there");
        self.folder.path().join(&part.files[0].object)
    }
}

fn versions() -> Versions {
    Versions { product: "1".to_owned(), engine: "engine 1".to_owned(), schema: "1.0".to_owned() }
}

fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(values)) as _)]).expect("one column")
}

fn part(detection: &str, values: impl IntoIterator<Item = i64>) -> Part {
    let tables = vec![("keys".to_owned(), numbers(values)), ("more".to_owned(), numbers([7]))];
    Part {
        key: PartKey::detection(detection, "prod"),
        kind: "first_seen".to_owned(),
        fingerprint: format!("fp-{detection}"),
        needs_engine: false,
        needs_schema: false,
        rows: 0,
        keys: 3,
        tables,
    }
}

fn snapshot(offset: u64, parts: Vec<Part>) -> Snapshot {
    let lanes = BTreeMap::from([("audit/0".to_owned(), offset)]);
    let clock = ClusterClock { watermark_us: Some(offset as i64 * 10), ..ClusterClock::default() };
    Snapshot {
        generation: offset,
        quarantined: BTreeMap::new(),
        positions: BTreeMap::from([("audit".to_owned(), lanes)]),
        clusters: BTreeMap::from([("prod".to_owned(), clock)]),
        parts,
    }
}

fn offset(image: &Image) -> Option<u64> {
    image.positions.get("audit")?.get("audit/0").copied()
}

fn take(image: &mut Image, detection: &str) -> Loaded {
    image.take(&PartKey::detection(detection, "prod"), &format!("fp-{detection}"), &versions())
}

#[track_caller]
fn assert_restored(image: &mut Image, detection: &str, values: impl IntoIterator<Item = i64>) {
    let expected = vec![("keys".to_owned(), numbers(values)), ("more".to_owned(), numbers([7]))];
    match take(image, detection) {
        Loaded::Restored(tables) => assert_eq!(tables, expected),
        other => panic!("{detection}: {other:?}"),
    }
}

#[track_caller]
fn reason(loaded: Loaded) -> GapReason {
    match loaded {
        Loaded::Gap(gap) => gap.reason,
        other => panic!("no gap: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_published_is_there_after_a_restart() {
    let place = Place::new();
    let (mut keeper, image) = place.claim().await;
    assert!(image.is_fresh());
    let mut both = vec![part("a", 0..100), part("b", 0..10)];
    both[1].key.cluster = Some("test".to_owned());
    let published = keeper.publish(snapshot(5, both)).await.expect("published");
    assert_eq!((published.epoch, published.bytes_written > 0, published.unswept), (2, true, None));
    drop(keeper);

    let (_, mut image) = place.claim().await;
    assert_eq!((image.epoch, offset(&image)), (Some(2), Some(5)));
    assert_eq!(image.clusters["prod"].watermark_us, Some(50));
    assert_eq!(image.clusters_of("b"), ["test"]);
    assert!(image.damages.is_empty());
    assert_restored(&mut image, "a", 0..100);
    assert!(matches!(take(&mut image, "unheard-of"), Loaded::Fresh));
    assert_eq!(image.left().into_iter().collect::<Vec<_>>(), ["b"], "what nobody took is told");
}

#[tokio::test]
async fn tables_that_did_not_change_are_not_written_again() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    let large = || part("large", 0..10_000);
    keeper.publish(snapshot(1, vec![large(), part("small", 0..10)])).await.expect("published");
    let same = keeper.publish(snapshot(2, vec![large(), part("small", 0..10)])).await.expect("published");
    assert_eq!(same.bytes_written, 0);
    let changed = keeper.publish(snapshot(3, vec![large(), part("small", 0..11)])).await.expect("published");
    assert!(changed.bytes_written > 0 && changed.bytes_written < changed.bytes / 2, "{changed:?}");
    assert_eq!(place.names("data").len(), 2);

    let (mut keeper, mut image) = place.claim().await;
    assert_restored(&mut image, "large", 0..10_000);
    assert_restored(&mut image, "small", 0..11);
    let after = keeper.publish(snapshot(4, vec![large(), part("small", 0..11)])).await.expect("published");
    assert_eq!(after.bytes_written, 0, "also after a restart");
}

#[tokio::test]
async fn what_is_sparse_is_written_anew_and_what_nobody_names_is_swept() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("large", 0..10_000), part("small", 0..10)])).await.expect("published");
    let first = place.names("data");
    for round in 2..=5 {
        let published = keeper.publish(snapshot(round, vec![part("small", 0..10)])).await.expect("published");
        assert_eq!(published.unswept, None);
        // The object of the first epoch is mostly of a detection that is gone.
        assert_eq!(published.bytes_written > 0, round == 2, "{published:?}");
    }
    assert_eq!(place.names("").len(), EPOCHS_KEPT);
    let left = place.names("data");
    assert!(left.len() == 1 && left != first, "{left:?}");
    let report = check(&place.store()).await.expect("read");
    assert_eq!((report.epochs, report.damages), (EPOCHS_KEPT, Vec::new()));
    let (_, mut image) = place.claim().await;
    assert_restored(&mut image, "small", 0..10);
}

#[tokio::test]
async fn a_table_that_lives_on_is_not_even_looked_at_again_and_still_moves_when_its_object_is_sparse() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    let (kept, large) = (numbers(0..1000), numbers(0..50_000));
    let with = |tables: &[(&str, &RecordBatch)]| {
        let tables = tables.iter().map(|(name, table)| ((*name).to_owned(), (*table).clone())).collect();
        Part { tables, ..part("a", 0..1) }
    };
    keeper.publish(snapshot(1, vec![with(&[("pane-1", &kept), ("pane-2", &large)])])).await.expect("published");
    let same = keeper.publish(snapshot(2, vec![with(&[("pane-1", &kept), ("pane-2", &large)])])).await;
    assert_eq!(same.expect("published").bytes_written, 0);
    let moved = keeper.publish(snapshot(3, vec![with(&[("pane-1", &kept)])])).await.expect("published");
    assert!(moved.bytes_written > 0, "its object held mostly the other one");
    // The same name with other content.
    keeper.publish(snapshot(4, vec![with(&[("pane-1", &large)])])).await.expect("published");
    let (_, mut image) = place.claim().await;
    assert!(matches!(take(&mut image, "a"), Loaded::Restored(tables) if tables[0].1 == large));
    assert_eq!(check(&place.store()).await.expect("read").damages, []);
}

#[tokio::test]
async fn sweeping_leaves_objects_of_a_writer_that_has_not_published_yet() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("a", 0..10)])).await.expect("published");
    let store = place.store();
    let (orphan, coming) = ("data/000000000001-orphan.arrows", "data/000000000099-coming.arrows");
    for name in [orphan, coming] {
        store.put(name, vec![bytes::Bytes::from_static(b"x")]).await.expect("written");
    }
    for round in 2..=5 {
        keeper.publish(snapshot(round, vec![part("a", 0..round as i64)])).await.expect("published");
    }
    assert_eq!(store.get(orphan).await.expect("read"), None);
    assert!(store.get(coming).await.expect("read").is_some());
}

#[tokio::test]
async fn a_torn_manifest_falls_back_to_the_epoch_before_and_is_told() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("a", 0..1)])).await.expect("published");
    keeper.publish(snapshot(2, vec![part("a", 0..2)])).await.expect("published");
    let path = place.manifest(3);
    let whole = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("written");

    let (mut keeper, mut image) = place.claim().await;
    assert_eq!((image.epoch, offset(&image)), (Some(2), Some(1)), "positions are of the same epoch");
    assert!(image.damages[0].epoch == 3 && image.damages[0].reason.contains("damaged"), "{:?}", image.damages);
    assert_restored(&mut image, "a", 0..1);
    keeper.publish(snapshot(3, vec![part("a", 0..3)])).await.expect("the torn epoch's number is not used again");
    assert_eq!(keeper.epoch(), 5);
    let report = check(&place.store()).await.expect("read");
    assert_eq!(report.damages.len(), 1, "the torn one is still there: {report:?}");
    assert_eq!(place.read(4).previous, Some(2));
}

/// Everything that can happen to the object of one table.
fn spoil(object: &Path, how: &str) {
    let whole = std::fs::read(object).expect("readable");
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0x10;
    match how {
        "missing" => std::fs::remove_file(object),
        "cut" => std::fs::write(object, &whole[..middle]),
        "empty" => std::fs::write(object, ""),
        _ => std::fs::write(object, changed),
    }
    .expect("spoiled");
}

#[tokio::test]
async fn a_missing_cut_or_changed_table_falls_back_to_the_epoch_before() {
    for how in ["missing", "cut", "empty", "changed"] {
        let place = Place::new();
        let (mut keeper, _) = place.claim().await;
        keeper.publish(snapshot(1, vec![part("a", 0..100)])).await.expect("published");
        keeper.publish(snapshot(2, vec![part("a", 0..200)])).await.expect("published");
        spoil(&place.object_of(3, "a"), how);
        let report = check(&place.store()).await.expect("read");
        assert!(report.damages.iter().any(|damage| damage.epoch == 3), "{how}: {report:?}");
        assert!(report.damages.iter().all(|damage| damage.epoch == 3), "{how}: {report:?}");

        let (_, mut image) = place.claim().await;
        assert_eq!((image.epoch, offset(&image)), (Some(2), Some(1)), "{how}");
        assert_eq!(image.damages.len(), 1, "{how}");
        assert_restored(&mut image, "a", 0..100);
    }
}

#[tokio::test]
async fn where_no_epoch_is_whole_the_damaged_part_is_a_gap_and_the_rest_is_used() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("a", 0..100)])).await.expect("published");
    let mut other = part("b", 0..9000);
    other.tables.truncate(1);
    keeper.publish(snapshot(2, vec![part("a", 0..100), other])).await.expect("published");
    std::fs::remove_file(place.object_of(2, "a")).expect("removed");

    // The epoch of the first claim is whole and empty; it must not pass for the newest state.
    assert!(place.manifest(1).exists());
    let (mut keeper, mut image) = place.claim().await;
    assert_eq!((image.epoch, offset(&image)), (Some(3), Some(2)));
    assert!(matches!(reason(take(&mut image, "a")), GapReason::Damaged(why) if why.contains("not there")));
    assert!(matches!(take(&mut image, "b"), Loaded::Restored(tables) if tables[0].1 == numbers(0..9000)));
    for round in 3..=6 {
        keeper.publish(snapshot(round, vec![part("a", 0..1), part("b", 0..9000)])).await.expect("published");
    }
    assert_eq!(check(&place.store()).await.expect("read").damages, []);
}

#[tokio::test]
async fn where_nothing_can_be_read_everything_is_a_gap_and_nothing_is_fresh() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("a", 0..100)])).await.expect("published");
    std::fs::write(place.manifest(2), "{").expect("written");
    let (_, mut image) = place.claim().await;
    assert!(!image.is_fresh() && image.epoch.is_none() && image.damages.len() == 1);
    assert!(matches!(reason(take(&mut image, "a")), GapReason::Damaged(_)));
    assert!(matches!(reason(take(&mut image, "never-kept")), GapReason::Damaged(_)));
}

#[tokio::test]
async fn whoever_comes_last_owns_the_place() {
    let place = Place::new();
    let (mut old, _) = place.claim().await;
    old.publish(snapshot(1, vec![part("a", 0..1)])).await.expect("published");
    let (mut new, mut image) = place.claim().await;
    assert_restored(&mut image, "a", 0..1);

    let error = old.publish(snapshot(2, vec![part("a", 0..2)])).await.expect_err("it is not the owner");
    assert!(matches!(&error, StateError::Fenced { epoch: 3, .. }), "{error}");
    assert!(error.to_string().contains("must stop"), "{error}");
    new.publish(snapshot(3, vec![part("a", 0..3)])).await.expect("the new owner goes on");

    // So many epochs later that the number which the old owner wants is free again.
    for round in 4..=9 {
        new.publish(snapshot(round, vec![part("a", 0..round as i64)])).await.expect("published");
    }
    assert!(!place.manifest(3).exists());
    let error = old.publish(snapshot(2, vec![part("a", 0..2)])).await.expect_err("it is still not the owner");
    assert!(matches!(&error, StateError::Fenced { epoch: 10, .. }), "{error}");
    assert!(!place.manifest(3).exists(), "it leaves nothing behind");
    assert_eq!(check(&place.store()).await.expect("read").damages, []);
    let (_, mut image) = place.claim().await;
    assert_restored(&mut image, "a", 0..9);
}

#[tokio::test]
async fn of_two_that_publish_the_same_epoch_one_wins() {
    let place = Place::new();
    let (mut first, _) = place.claim().await;
    let (mut second, _) = place.claim().await;
    let (one, two) = tokio::join!(
        first.publish(snapshot(1, vec![part("a", 0..1)])),
        second.publish(snapshot(2, vec![part("a", 0..2)])),
    );
    assert!(matches!(one, Err(StateError::Fenced { .. })), "{one:?}");
    assert_eq!(two.expect("the last to claim").epoch, 3);
}

#[tokio::test]
async fn an_epoch_whose_answer_was_lost_does_not_fence_its_own_writer() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("a", 0..1)])).await.expect("published");
    // As if the manifest had been written and the answer had not come back.
    let lost = Manifest { epoch: 3, ..place.read(2) };
    std::fs::write(place.manifest(3), lost.seal()).expect("written");
    let published = keeper.publish(snapshot(2, vec![part("a", 0..2)])).await.expect("published");
    assert_eq!((published.epoch, place.read(4).previous), (4, Some(3)));
}

#[tokio::test]
async fn a_failed_write_leaves_the_epoch_before_in_force_and_is_tried_again() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("a", 0..10)])).await.expect("published");
    let data = place.folder.path().join("data");
    let aside = place.folder.path().join("aside");
    std::fs::rename(&data, &aside).expect("moved");
    // A file where the folder should be: every write below it fails.
    std::fs::write(&data, "").expect("written");
    let error = keeper.publish(snapshot(2, vec![part("a", 0..20)])).await.expect_err("nowhere to write");
    assert!(matches!(error, StateError::Store { action: "write", .. }), "{error}");
    std::fs::remove_file(&data).expect("removed");
    std::fs::rename(&aside, &data).expect("moved back");
    keeper.publish(snapshot(3, vec![part("a", 0..30)])).await.expect("published");
    let (_, mut image) = place.claim().await;
    assert_restored(&mut image, "a", 0..30);
}

#[tokio::test]
async fn what_another_version_wrote_is_a_gap_only_where_it_matters() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    let mut panes = part("panes", 0..3);
    panes.needs_engine = true;
    let mut rows = part("rows", 0..3);
    rows.needs_schema = true;
    keeper.publish(snapshot(1, vec![panes, rows, part("keys", 0..3), part("edited", 0..3)])).await.expect("published");

    let (_, mut image) = place.claim().await;
    let newer = Versions { product: "2".to_owned(), engine: "engine 2".to_owned(), schema: "1.1".to_owned() };
    let mut take =
        |detection: &str, fingerprint: &str| image.take(&PartKey::detection(detection, "prod"), fingerprint, &newer);
    assert!(matches!(reason(take("panes", "fp-panes")), GapReason::Engine { was, .. } if was == "engine 1"));
    assert!(matches!(reason(take("rows", "fp-rows")), GapReason::Schema { was, .. } if was == "1.0"));
    assert!(matches!(take("keys", "fp-keys"), Loaded::Restored(_)));
    assert_eq!(reason(take("edited", "fp-of-another-query")), GapReason::Changed);
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("a", 0..1)])).await.expect("published");
    let newer = Manifest { format: FORMAT + 1, ..place.read(2) };
    std::fs::write(place.manifest(2), newer.seal()).expect("written");
    let error = Keeper::claim(place.store(), versions()).await.expect_err("not ours to read");
    assert!(matches!(&error, StateError::Format { found, .. } if *found == FORMAT + 1), "{error}");
    assert!(error.is_users());
    assert_eq!(place.names("").len(), 2, "nothing was written");
}

#[tokio::test]
async fn what_a_killed_process_left_half_written_is_removed() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(1, vec![part("a", 0..1)])).await.expect("published");
    let half = place.folder.path().join("data/000000000009-aa.arrows#3");
    std::fs::write(&half, "half").expect("written");
    let (_, image) = place.claim().await;
    assert!(!half.exists() && offset(&image) == Some(1));
}

#[tokio::test]
async fn a_check_sees_positions_that_go_back_and_objects_of_another_size() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    keeper.publish(snapshot(9, vec![part("a", 0..10)])).await.expect("published");
    keeper.publish(snapshot(8, vec![part("a", 0..10)])).await.expect("published");
    let report = check(&place.store()).await.expect("read");
    assert!(report.damages.iter().any(|damage| damage.reason.contains("goes back from 9 to 8")), "{report:?}");
    let object = place.object_of(3, "a");
    let longer = [std::fs::read(&object).expect("readable"), vec![0]].concat();
    std::fs::write(&object, longer).expect("written");
    let report = check(&place.store()).await.expect("read");
    assert!(report.damages.iter().any(|damage| damage.reason.contains("bytes instead of")), "{report:?}");
    assert!(matches!(check(&StateStore::in_memory()).await, Err(StateError::Absent { .. })));
}

#[tokio::test]
async fn tables_of_one_part_can_be_looked_at() {
    let place = Place::new();
    let (mut keeper, _) = place.claim().await;
    let names = StringArray::from(vec!["x", "y"]);
    let table = RecordBatch::try_from_iter([("name", Arc::new(names) as _)]).expect("one column");
    let mut shared = part("ignored", 0..1);
    shared.key = PartKey::shared("findings", None);
    shared.tables = vec![("findings".to_owned(), table.clone())];
    keeper.publish(snapshot(1, vec![part("a", 0..5), shared])).await.expect("published");
    let store = place.store();
    let (_, manifest) = inspect(&store).await.expect("read").remove(0);
    let manifest = manifest.expect("whole");
    let tables = tables_of(&store, &manifest, &manifest.parts[1]).await.expect("read").expect("whole");
    assert_eq!(tables, [("findings".to_owned(), table)]);
}

#[tokio::test]
async fn a_store_without_files_keeps_the_same_promises() {
    let store = StateStore::in_memory();
    let (mut old, image) = Keeper::claim(store.clone(), versions()).await.expect("claimed");
    assert!(image.is_fresh());
    old.publish(snapshot(1, vec![part("a", 0..5)])).await.expect("published");
    let (mut new, mut image) = Keeper::claim(store.clone(), versions()).await.expect("claimed");
    assert_restored(&mut image, "a", 0..5);
    assert!(matches!(old.publish(snapshot(2, Vec::new())).await, Err(StateError::Fenced { .. })));
    new.publish(snapshot(2, vec![part("a", 0..6)])).await.expect("published");
    assert_eq!(check(&store).await.expect("read").damages, []);
}

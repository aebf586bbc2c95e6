//! Lines and pages as servers write them, and as they should not.

use super::*;
use crate::kube::failure::Consequence;

const WEB: &str = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"web","namespace":"shop","resourceVersion":"7",
"managedFields":[{"manager":"x"}],"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","a":"b"}},"spec":{}}"#;

fn line(kind: &str, object: &str) -> Result<Line, Failure> {
    Line::read(format!(r#"{{"type":"{kind}","object":{object}}}"#).as_bytes())
}

#[test]
fn events_are_read_without_what_nobody_reads() {
    for kind in ["ADDED", "MODIFIED"] {
        let Ok(Line::Put(item)) = line(kind, WEB) else { panic!("{kind} is no Put") };
        assert_eq!((&*item.namespace, &*item.name, &*item.version), ("shop", "web", "7"));
        let kept: Value = serde_json::from_str(
            r#"{"metadata":{"name":"web","namespace":"shop","resourceVersion":"7","annotations":{"a":"b"}},"spec":{}}"#,
        )
        .unwrap();
        assert_eq!(item.tree, kept);
    }
    assert!(matches!(line("DELETED", WEB), Ok(Line::Gone(item)) if item.name == "web"));
}

#[test]
fn bookmarks_tell_a_version_and_the_end_of_a_list() {
    let bookmark = |annotations: &str| {
        line("BOOKMARK", &format!(r#"{{"metadata":{{"resourceVersion":"9","annotations":{annotations}}}}}"#))
    };
    let read = |line| match line {
        Ok(Line::Bookmark { version, is_listed }) => (version, is_listed),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(bookmark("null")), ("9".to_owned(), false));
    assert_eq!(read(bookmark(r#"{"k8s.io/initial-events-end":"true"}"#)), ("9".to_owned(), true));
    assert!(matches!(line("BOOKMARK", "{}"), Err(Failure::NoVersion)));
}

#[test]
fn the_servers_errors_are_told_from_garbage() {
    let gone = line("ERROR", r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#).unwrap_err();
    assert_eq!(gone.consequence(), Consequence::Relist);
    for bad in ["", "{", "null", "[]", r#"{"type":"ADDED"}"#, r#"{"type":"ADDED","object":{}}"#] {
        assert!(matches!(Line::read(bad.as_bytes()), Err(Failure::Garbage(_))), "{bad}");
    }
    assert!(matches!(line("REMOVED", WEB), Err(Failure::Garbage(_))));
    let deep = format!(r#"{{"type":"ADDED","object":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(Line::read(deep.as_bytes()), Err(Failure::Garbage(_))), "no stack is overrun");
}

#[test]
fn pages_have_items_a_version_and_perhaps_a_token() {
    let page =
        Page::read(format!(r#"{{"metadata":{{"resourceVersion":"5","continue":"t"}},"items":[{WEB}]}}"#).as_bytes());
    let page = page.unwrap();
    assert_eq!((&*page.version, &*page.token, page.items.len()), ("5", "t", 1));
    let empty = Page::read(br#"{"metadata":{"resourceVersion":"5"},"items":null}"#).unwrap();
    assert!(empty.items.is_empty() && empty.token.is_empty());
    assert!(matches!(Page::read(br#"{"metadata":{},"items":[]}"#), Err(Failure::NoVersion)));
    assert!(matches!(Page::read(b"<html>"), Err(Failure::Garbage(_))));
}

#[tokio::test]
async fn lines_are_found_in_pieces_and_bounded() {
    let patience = Duration::from_secs(5);
    let mut lines = Lines::new(Body::from(b"one\n\n  \ntwo\n".to_vec()));
    let mut found = Vec::new();
    while let Some(line) = lines.next(patience).await.unwrap() {
        found.push(String::from_utf8(line.to_vec()).unwrap());
    }
    assert_eq!(found, ["one\n", "two\n"]);
    let mut cut = Lines::new(Body::from(b"one\ntw".to_vec()));
    assert!(cut.next(patience).await.unwrap().is_some());
    assert!(matches!(cut.next(patience).await, Err(Failure::Unreachable(_))));
    let mut endless = Lines::new(Body::from(vec![b'x'; LINE + 1]));
    assert!(matches!(endless.next(patience).await, Err(Failure::TooLarge(_))));
    assert_eq!(beginning(Body::from(vec![b'x'; REFUSAL * 2]), patience).await.len(), REFUSAL);
}

//! Where documents begin, where their fields stand, and what is refused before it costs too much.

use super::*;

fn documents(format: Format, text: &str) -> Vec<Document> {
    split(&Arc::from(Path::new("f")), format, text, 100)
}

#[test]
fn streams_are_split_at_markers() {
    let cases: [(&str, &[usize]); 10] = [
        ("", &[]),
        ("# only a comment\n---\n---\n", &[]),
        ("a: 1", &[1]),
        ("a: 1\n---\nb: 2\n", &[1, 3]),
        ("\u{feff}a: 1\r\n---\r\nb: 2\r\n", &[1, 3]),
        ("---\n# comment\na: 1\n...\n---\nb: 2", &[3, 6]),
        ("--- {a: 1}\n--- # comment\nb: 2", &[1, 3]),
        ("%YAML 1.2\n---\na: 1", &[3]),
        ("a: |\n  ---\n  text\n---x: 1\n", &[1]),
        ("a: 1\n---", &[1]),
    ];
    for (text, lines) in cases {
        let found: Vec<_> = documents(Format::Yaml, text).iter().map(Document::content_line).collect();
        assert_eq!(found, lines, "{text:?}");
    }
    let json = documents(Format::Json, "{\"a\": 1}\n{\"b\":\n2} {");
    assert_eq!(json.iter().map(|document| document.first_line).collect::<Vec<_>>(), [1, 1, 3]);
    assert!(json[0].tree().is_ok() && json[1].tree().is_ok());
    assert_eq!(json[2].tree().unwrap_err().line, 3);
}

#[test]
fn fields_are_found_by_line() {
    let yaml = "# c\nkind: A\nspec:\n  ports:\n  - port: 1\n    name: x\n  -\n    port: 2\n  m: {a.b/c: 1}\n";
    let json = "{\"kind\": \"A\",\n\"spec\":\n{\"ports\": [\n{\"port\": 1},\n{\"name\": \"x\",\n\"port\": 2}],\n\"m\":{\n\"a.b/c\": 1}}}";
    let cases = [
        ("", 2, 1),
        ("kind", 2, 1),
        ("spec.ports[0].port", 5, 4),
        ("spec.ports[0].name", 6, 4),
        ("spec.ports[1].port", 8, 6),
        // What is missing is told at its parent.
        ("spec.ports[1].name.x", 8, 5),
        ("spec.none", 4, 4),
        ("spec.m[a.b/c]", 9, 8),
    ];
    for (path, in_yaml, in_json) in cases {
        assert_eq!(documents(Format::Yaml, yaml)[0].line_of(&steps(path)), in_yaml, "{path}");
        assert_eq!(documents(Format::Json, json)[0].line_of(&steps(path)), in_json, "{path}");
    }
}

#[test]
fn alias_bombs_end_in_an_error() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let inner = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![inner; 10].join(",")));
    }
    let complaint = documents(Format::Yaml, &bomb)[0].tree().unwrap_err();
    assert!(complaint.reason.contains("repetition limit"), "{complaint:?}");
    let deep = "[".repeat(100_000);
    assert!(documents(Format::Yaml, &deep)[0].tree().is_err());
    assert!(documents(Format::Json, &deep)[0].tree().is_err());
}

//! Text with nginx's variables, as annotations hold it: parsed once, rendered for each request.
//!
//! On the configuration's way [`Template::parse`] refuses a variable that nobody here knows, by its name. On the request's way
//! [`Template::render`] asks a [`Facts`] for the values; this crate knows no HTTP library, so the proxy brings them. What is
//! rendered can be a header field's value: neither the text nor a value can put a control character into it. Which variables
//! make sense where is the reader's matter; `$1` outside a rule with captures is empty, as in nginx.

use std::{borrow::Cow, fmt};

/// Text with variables. Written as nginx does: `$name` or `${name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// What a template can ask about a request (<https://nginx.org/en/docs/varindex.html>, and ingress-nginx's own).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `$host`: the request's host in lower case, without a port.
    Host,
    /// `$http_host`, `$best_http_host`, `$this_host`: the authority as the client wrote it.
    Authority,
    /// `$scheme`, `$pass_access_scheme`: `http` or `https`.
    Scheme,
    /// `$request_uri`: path and query as the client wrote them.
    RequestUri,
    /// `$escaped_request_uri`: the same, percent-encoded for use as a query's value.
    EscapedRequestUri,
    /// `$uri`, `$document_uri`: the path, decoded and normalised.
    Path,
    /// `$args`, `$query_string`: the query without its question mark.
    Query,
    /// `$is_args`: a question mark where there is a query.
    QuestionMark,
    /// `$arg_NAME`: the first argument of that name, in whatever case, still encoded.
    Argument(Box<str>),
    /// `$cookie_NAME`: the cookie of that name, in whatever case.
    Cookie(Box<str>),
    /// `$http_NAME`: a field of the request, here in lower case with dashes.
    Header(Box<str>),
    /// `$remote_addr`, `$the_real_ip`: the client's address.
    RemoteAddr,
    /// `$request_method`.
    Method,
    /// `$server_port`, `$pass_server_port`: the port that the client connected to.
    ServerPort,
    /// `$server_protocol`: `HTTP/1.1`, `HTTP/2.0`.
    Protocol,
    /// `$server_name`: the host of the rule that takes the request.
    ServerName,
    /// `$proxy_add_x_forwarded_for`: the client's X-Forwarded-For with its address behind it.
    ForwardedFor,
    /// `$request_id`, `$req_id`: what X-Request-ID tells the endpoint.
    RequestId,
    /// `$namespace` of the Ingress.
    Namespace,
    /// `$ingress_name`.
    IngressName,
    /// `$service_name`.
    ServiceName,
    /// `$service_port`, as the Ingress writes it.
    ServicePort,
    /// `$location_path`: the path of the rule.
    LocationPath,
    /// `$1` to `$9`: what a group of the rule's regular expression took.
    Capture(u8),
    /// A variable of a snippet's own, by its place.
    Set(usize),
}

/// A request, as far as templates ask about it.
pub trait Facts {
    /// A variable's value; what the request does not have is empty.
    fn value(&self, variable: &Variable) -> Cow<'_, [u8]>;
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A name behind a dollar sign that means nothing here.
    Unknown(String),
    /// A dollar sign without a name, or a brace that does not close.
    Dollar,
    /// A line break or another control character.
    Control,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "knows no variable ${name}"),
            Self::Dollar => f.write_str("has a dollar sign that begins no variable"),
            Self::Control => f.write_str("holds a control character"),
        }
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// [`TemplateError`] names what is wrong.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_with(text, |_| None)
    }

    /// Reads a text that may name variables of its surroundings too: `own` knows their places.
    pub(crate) fn parse_with(text: &str, own: impl Fn(&str) -> Option<usize>) -> Result<Self, TemplateError> {
        if text.bytes().any(is_control) {
            return Err(TemplateError::Control);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let (name, after) = split_name(after).ok_or(TemplateError::Dollar)?;
            let variable = own(name).map(Variable::Set).or_else(|| Variable::named(name));
            parts.push(Part::Variable(variable.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// The text where it has no variables.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text before the first variable.
    #[must_use]
    pub fn beginning(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The variables, in the order of the text.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// The same with each piece of plain text changed.
    pub(crate) fn map_text(self, change: impl Fn(&str) -> String) -> Self {
        let parts = self.parts.into_iter().map(|part| match part {
            Part::Text(text) => Part::Text(change(&text).into()),
            variable @ Part::Variable(_) => variable,
        });
        Self { parts: parts.collect() }
    }

    /// The text for a request. It holds no control character, so it can be a field's value as it is.
    #[must_use]
    pub fn render(&self, facts: &dyn Facts) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => {
                    out.extend(facts.value(variable).iter().copied().filter(|byte| !is_control(*byte)));
                }
            }
        }
        out
    }

    /// As [`Template::render`], with whatever is no UTF-8 replaced.
    #[must_use]
    pub fn render_text(&self, facts: &dyn Facts) -> String {
        match String::from_utf8(self.render(facts)) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }
    }
}

impl Variable {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Some(match name.as_str() {
            "host" => Self::Host,
            "http_host" | "best_http_host" | "this_host" => Self::Authority,
            "scheme" | "pass_access_scheme" => Self::Scheme,
            "request_uri" => Self::RequestUri,
            "escaped_request_uri" => Self::EscapedRequestUri,
            "uri" | "document_uri" => Self::Path,
            "args" | "query_string" => Self::Query,
            "is_args" => Self::QuestionMark,
            "remote_addr" | "the_real_ip" => Self::RemoteAddr,
            "request_method" => Self::Method,
            "server_port" | "pass_server_port" | "pass_port" => Self::ServerPort,
            "server_protocol" => Self::Protocol,
            "server_name" => Self::ServerName,
            "proxy_add_x_forwarded_for" => Self::ForwardedFor,
            "request_id" | "req_id" => Self::RequestId,
            "content_type" => Self::Header("content-type".into()),
            "content_length" => Self::Header("content-length".into()),
            "namespace" => Self::Namespace,
            "ingress_name" => Self::IngressName,
            "service_name" => Self::ServiceName,
            "service_port" => Self::ServicePort,
            "location_path" => Self::LocationPath,
            _ => return Self::of_family(&name),
        })
    }

    fn of_family(name: &str) -> Option<Self> {
        if let [digit @ b'1'..=b'9'] = name.as_bytes() {
            return Some(Self::Capture(digit - b'0'));
        }
        let (family, member) = name.split_once('_').filter(|(_, member)| !member.is_empty())?;
        match family {
            "arg" => Some(Self::Argument(member.into())),
            "cookie" => Some(Self::Cookie(member.into())),
            "http" => Some(Self::Header(member.replace('_', "-").into())),
            _ => None,
        }
    }
}

/// The name behind a dollar sign, and what follows it. A number is one digit, as nginx reads it.
fn split_name(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}').filter(|(name, _)| !name.is_empty() && name.bytes().all(is_name_byte));
    }
    let end = match text.as_bytes().first()? {
        b'0'..=b'9' => 1,
        _ => text.bytes().take_while(|byte| is_name_byte(*byte)).count(),
    };
    text.split_at_checked(end).filter(|(name, _)| !name.is_empty())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with the variable's own name.
    struct Named;

    impl Facts for Named {
        fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
            Cow::Owned(format!("<{variable:?}>").into_bytes())
        }
    }

    fn check(text: &str, expected: Result<&str, TemplateError>) {
        let rendered = Template::parse(text).map(|template| template.render_text(&Named));
        assert_eq!(rendered, expected.map(str::to_owned), "{text:?}");
    }

    #[test]
    fn variables_are_known_by_nginx_s_names() {
        for (text, expected) in [
            ("", ""),
            ("plain text", "plain text"),
            ("$host", "<Host>"),
            ("https://$host$request_uri", "https://<Host><RequestUri>"),
            ("${scheme}s", "<Scheme>s"),
            ("$scheme://$best_http_host", "<Scheme>://<Authority>"),
            ("/$1/$22", "/<Capture(1)>/<Capture(2)>2"),
            ("$arg_Page", "<Argument(\"page\")>"),
            ("$cookie_my_id;", "<Cookie(\"my_id\")>;"),
            ("$http_x_real_ip", "<Header(\"x-real-ip\")>"),
            ("$http_host", "<Authority>"),
            ("$REMOTE_ADDR$request_method", "<RemoteAddr><Method>"),
            ("$uri$is_args$args", "<Path><QuestionMark><Query>"),
            ("$server_port $proxy_add_x_forwarded_for", "<ServerPort> <ForwardedFor>"),
            ("$namespace/$ingress_name", "<Namespace>/<IngressName>"),
            ("$service_name:${service_port}", "<ServiceName>:<ServicePort>"),
            ("$req_id$escaped_request_uri", "<RequestId><EscapedRequestUri>"),
        ] {
            check(text, Ok(expected));
        }
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        let unknown = |name: &str| Err(TemplateError::Unknown(name.to_owned()));
        check("a$foo", unknown("foo"));
        check("${upstream_addr}", unknown("upstream_addr"));
        check("$http_", unknown("http_"));
        check("$0", unknown("0"));
        for text in ["$", "a$ b", "$-x", "${host", "${}", "${a b}"] {
            check(text, Err(TemplateError::Dollar));
        }
        for text in ["a\r\nSet-Cookie: b", "a\0", "\x7f"] {
            check(text, Err(TemplateError::Control));
        }
        assert_eq!(TemplateError::Unknown("foo".to_owned()).to_string(), "knows no variable $foo");
    }

    #[test]
    fn constants_need_no_request() {
        for (text, constant, beginning) in
            [("/x", Some("/x"), "/x"), ("", Some(""), ""), ("/x/$1", None, "/x/"), ("$host/x", None, "")]
        {
            let template = Template::parse(text).unwrap();
            assert_eq!((template.constant(), template.beginning()), (constant, beginning), "{text}");
        }
    }

    #[test]
    fn no_value_breaks_a_header() {
        let rendered = crate::fuzz_template("x-$host-$http_a").unwrap();
        assert!(rendered.iter().all(|byte| !is_control(*byte)), "{rendered:?}");
        assert_eq!(String::from_utf8_lossy(&rendered), "x-Set-Cookie: a=b\u{fffd}-Set-Cookie: a=b\u{fffd}");
    }
}

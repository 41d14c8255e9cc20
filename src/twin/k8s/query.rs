//! The query of a request.

/// The pairs of a query, decoded.
pub fn decode_pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode_percent(key), decode_percent(value))
        })
        .collect()
}

/// Undoes percent encoding, and `+` for a blank.
pub fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        match (bytes[i], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (_, Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, None) => {
                out.push(if byte == b'+' { b' ' } else { byte });
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A query to ask things of.
#[derive(Clone, Debug, Default)]
pub struct QueryParams(Vec<(String, String)>);

impl QueryParams {
    /// Reads a query.
    pub fn parse(query: &str) -> Self {
        Self(decode_pairs(query))
    }

    /// The value of `key`; empty when it is not there.
    pub fn get(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
            .unwrap_or_default()
    }

    /// Whether `key` is there and says yes.
    pub fn is_true(&self, key: &str) -> bool {
        self.0
            .iter()
            .any(|(k, v)| k == key && !matches!(v.as_str(), "false" | "0"))
    }

    /// The number `key` says.
    pub fn parse_number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.get(key).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = QueryParams::parse(
            "labelSelector=app%3Dweb%2Cx+in+%28a%29&watch=1&limit=500&allowWatchBookmarks=true",
        );
        assert_eq!(query.get("labelSelector"), "app=web,x in (a)");
        assert!(
            query.is_true("watch")
                && query.is_true("allowWatchBookmarks")
                && !query.is_true("pretty")
        );
        assert_eq!(query.parse_number("limit"), Some(500));
    }
}

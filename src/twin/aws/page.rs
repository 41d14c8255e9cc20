//! Pages of lists: every list operation answers a part and says where the next one begins.

use base64::Engine as _;

use super::error::AwsError;

const TOKEN_ENCODING: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

/// One page and the token of the next.
pub struct ListPage<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// Cuts the page of at most `size` items that `token` names out of `items`.
pub fn cut_page<T>(
    items: impl IntoIterator<Item = T>,
    token: Option<&str>,
    size: i64,
) -> Result<ListPage<T>, AwsError> {
    let size = usize::try_from(size).unwrap_or(1).max(1);
    let start = match token {
        None | Some("") => 0,
        Some(token) => read_token(token)
            .ok_or_else(|| AwsError::validation_error("The token is not valid."))?,
    };
    // A token is a place in the list as it is now: what changed between two pages can be missed or shown twice.
    let mut rest = items.into_iter().skip(start);
    let items: Vec<T> = rest.by_ref().take(size).collect();
    let next = rest
        .next()
        .map(|_| TOKEN_ENCODING.encode(format!("twin-page:{}", start + items.len())));
    Ok(ListPage { items, next })
}

fn read_token(token: &str) -> Option<usize> {
    let bytes = TOKEN_ENCODING.decode(token).ok()?;
    std::str::from_utf8(&bytes)
        .ok()?
        .strip_prefix("twin-page:")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_whole_and_a_bad_token_is_refused() {
        let mut token = None;
        let mut all = Vec::new();
        loop {
            let page = cut_page(0..5, token.as_deref(), 2).unwrap();
            all.extend(page.items);
            match page.next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert!(cut_page(0..5, Some("bogus"), 2).is_err());
    }
}

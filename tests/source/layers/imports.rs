//! Reads who imports whom from the sources themselves: every `use` (groups, renames, globs, `pub use`) and every path that
//! starts at `crate`, `super`, `self` or a child module, at any depth and in macros too, without test code. A name that a
//! module hands on (`pub use`) is followed to the file that declares it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// A module's or an item's path below the crate's root, such as `["steps", "drain", "decide"]`.
pub(crate) type ModulePath = Vec<String>;

/// One source file: its module and the modules it names.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) module: ModulePath,
    /// What its code uses, followed to the file that declares it.
    pub(crate) imports: BTreeSet<ModulePath>,
    /// What it only hands on.
    pub(crate) reexports: BTreeSet<ModulePath>,
}

/// Returns every file under `dir` that ends in `.rs`, sorted.
pub(crate) fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Reads the whole of `src` but for the files that are compiled in tests only.
pub(crate) fn read_sources(src: &Path) -> Vec<SourceFile> {
    let texts = rust_files(src).into_iter().map(|file| {
        let module = module_path(file.strip_prefix(src).unwrap());
        (module, fs::read_to_string(&file).unwrap())
    });
    resolve_imports(texts.collect())
}

/// The same of texts by their modules.
pub(crate) fn resolve_imports(texts: BTreeMap<ModulePath, String>) -> Vec<SourceFile> {
    let known: BTreeSet<ModulePath> = texts.keys().cloned().collect();
    let mut files: BTreeMap<ModulePath, PathReader> = BTreeMap::new();
    for (module, text) in texts {
        let syntax = syn::parse_file(&text)
            .unwrap_or_else(|e| panic!("{} cannot be parsed: {e}", module.join("::")));
        let mut reader = PathReader::new(module.clone(), &known);
        reader.visit_file(&syntax);
        files.insert(module, reader);
    }
    let test_only: BTreeSet<ModulePath> = files
        .values()
        .flat_map(|f| f.test_modules.iter().cloned())
        .collect();
    files.retain(|module, _| !test_only.iter().any(|t| module.starts_with(t)));
    let follow = |module: &ModulePath, paths: &BTreeSet<ModulePath>| {
        let declared = paths
            .iter()
            .filter_map(|p| declaring_file(&files, p.clone()));
        declared.filter(|p| p != module).collect()
    };
    files
        .iter()
        .map(|(module, reader)| SourceFile {
            module: module.clone(),
            imports: follow(module, &reader.used),
            reexports: follow(module, &reader.exported.values().cloned().collect()),
        })
        .collect()
}

fn module_path(below_src: &Path) -> ModulePath {
    let mut parts: ModulePath = below_src
        .with_extension("")
        .iter()
        .map(|p| p.to_string_lossy().into_owned())
        .collect();
    if parts
        .last()
        .is_some_and(|l| matches!(l.as_str(), "mod" | "lib" | "main"))
    {
        parts.pop();
    }
    parts
}

/// Cuts the names of items off a path until it is a file's, and goes on where that file hands the name on.
fn declaring_file(
    files: &BTreeMap<ModulePath, PathReader>,
    mut path: ModulePath,
) -> Option<ModulePath> {
    // A name is not handed on forever.
    for _ in 0..8 {
        let depth = (1..=path.len())
            .rev()
            .find(|n| files.contains_key(&path[..*n]))?;
        let (module, rest) = (path[..depth].to_vec(), path[depth..].to_vec());
        let exported = rest.first().and_then(|n| files[&module].exported.get(n));
        match exported {
            Some(further) if *further != path => {
                path = further.iter().chain(&rest[1..]).cloned().collect();
            }
            _ => return Some(module),
        }
    }
    None
}

/// What one file names.
struct PathReader<'k> {
    known: &'k BTreeSet<ModulePath>,
    /// The module the code is in; inline modules add to it.
    inside: ModulePath,
    used: BTreeSet<ModulePath>,
    /// Name here, and the path it stands for.
    exported: BTreeMap<String, ModulePath>,
    /// Child modules that are compiled in tests only.
    test_modules: BTreeSet<ModulePath>,
}

impl<'k> PathReader<'k> {
    fn new(module: ModulePath, known: &'k BTreeSet<ModulePath>) -> Self {
        Self {
            known,
            inside: module,
            used: BTreeSet::new(),
            exported: BTreeMap::new(),
            test_modules: BTreeSet::new(),
        }
    }

    /// Returns the path from the crate's root, if `parts` starts within this crate.
    fn absolute_path(&self, parts: &[String]) -> Option<ModulePath> {
        let first = parts.first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.inside.clone(),
            "super" => self.inside[..self.inside.len().checked_sub(1)?].to_vec(),
            child => {
                let path: ModulePath = self.inside.iter().chain([first]).cloned().collect();
                return self.known.contains(&path).then(|| {
                    debug_assert_eq!(path.last().map(String::as_str), Some(child));
                    path.iter().chain(&parts[1..]).cloned().collect()
                });
            }
        };
        let mut rest = &parts[1..];
        while rest.first().is_some_and(|p| p == "super") {
            at.pop();
            rest = &rest[1..];
        }
        at.extend(rest.iter().cloned());
        Some(at)
    }

    fn note_path(&mut self, parts: &[String]) {
        if let Some(path) = self.absolute_path(parts) {
            self.used.insert(path);
        }
    }

    /// Notes what `tree` names; `exports` for `pub use`.
    fn note_use(&mut self, before: &mut Vec<String>, tree: &syn::UseTree, exports: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.note_use(before, &path.tree, exports);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                for one in &group.items {
                    self.note_use(before, one, exports);
                }
            }
            syn::UseTree::Name(name) => self.note_name(before, &name.ident, &name.ident, exports),
            syn::UseTree::Rename(name) => {
                self.note_name(before, &name.ident, &name.rename, exports);
            }
            // Which names these are is not followed: the module they come from is taken for the one that declares them.
            syn::UseTree::Glob(_) => self.note_path(before),
        }
    }

    fn note_name(
        &mut self,
        before: &[String],
        name: &syn::Ident,
        here: &syn::Ident,
        exports: bool,
    ) {
        let mut whole = before.to_vec();
        if name != "self" {
            whole.push(name.to_string());
        }
        let Some(path) = self.absolute_path(&whole) else {
            return;
        };
        if exports {
            let here = if here == "self" {
                path.last().cloned()
            } else {
                Some(here.to_string())
            };
            self.exported.extend(here.map(|here| (here, path)));
        } else {
            self.used.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for PathReader<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.inside.push(module.ident.to_string());
        if is_test_only(&module.attrs) {
            self.test_modules.insert(self.inside.clone());
        } else {
            visit::visit_item_mod(self, module);
        }
        self.inside.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test_only(&item.attrs) {
            let exports = !matches!(item.vis, syn::Visibility::Inherited);
            self.note_use(&mut Vec::new(), &item.tree, exports);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test_only(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_test_only(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test_only(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    // A module's visibility is no import.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.note_path(&parts);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        for parts in paths_in_tokens(&called.tokens.to_string()) {
            self.note_path(&parts);
        }
        visit::visit_macro(self, called);
    }
}

/// Returns the paths of more than one part in a macro's tokens, which nobody has parsed.
fn paths_in_tokens(tokens: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut joined = false;
    let mut rest = tokens;
    while let Some(first) = rest.chars().next() {
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        if word > 0 {
            if !joined {
                found.push(std::mem::take(&mut path));
            }
            path.push(rest[..word].to_owned());
            (joined, rest) = (false, &rest[word..]);
        } else if let Some(after) = rest.strip_prefix("::") {
            (joined, rest) = (true, after);
        } else {
            if !first.is_whitespace() {
                found.push(std::mem::take(&mut path));
                joined = false;
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    found.push(path);
    found.retain(|p| p.len() > 1);
    found
}

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("test")
            || (a.path().is_ident("cfg")
                && a.parse_args::<syn::Ident>()
                    .is_ok_and(|only| only == "test"))
    })
}

/// Returns the circles: sets of more than one key in which each leads to each other.
pub(crate) fn circles<K: Ord + Clone>(arrows: &BTreeMap<K, BTreeSet<K>>) -> Vec<BTreeSet<K>> {
    let reach: BTreeMap<&K, BTreeSet<K>> =
        arrows.keys().map(|k| (k, reachable(arrows, k))).collect();
    let mut found: Vec<BTreeSet<K>> = Vec::new();
    for (key, reached) in &reach {
        if found.iter().any(|c| c.contains(*key)) || !reached.contains(*key) {
            continue;
        }
        let circle: BTreeSet<K> = reached
            .iter()
            .filter(|other| reach.get(other).is_some_and(|r| r.contains(*key)))
            .cloned()
            .collect();
        if circle.len() > 1 {
            found.push(circle);
        }
    }
    found
}

fn reachable<K: Ord + Clone>(arrows: &BTreeMap<K, BTreeSet<K>>, from: &K) -> BTreeSet<K> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&K> = vec![from];
    while let Some(at) = open.pop() {
        for next in arrows.get(at).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `here` imports of a crate with the modules `other`, `other::deep`, `here` and `here::child`.
    fn imports_of(text: &str) -> Vec<String> {
        let texts = [
            (vec![], ""),
            (vec!["other"], "pub use deep::{Handed as On, deeper::Far};"),
            (vec!["other", "deep"], ""),
            (vec!["here"], text),
            (vec!["here", "child"], ""),
        ];
        let texts = texts.map(|(module, text)| {
            let module: ModulePath = module.into_iter().map(str::to_owned).collect();
            (module, text.to_owned())
        });
        let files = resolve_imports(texts.into_iter().collect());
        let here = files.iter().find(|f| f.module == ["here"]).unwrap();
        here.imports.iter().map(|p| p.join("::")).collect()
    }

    #[test]
    fn a_group_and_a_nested_group_are_imports() {
        let all = ["here::child", "other", "other::deep"];
        assert_eq!(
            imports_of("use crate::{other::{self, deep::{A, B}}, here::child};"),
            all
        );
        assert_eq!(imports_of("use crate::{other};"), ["other"]);
    }

    #[test]
    fn a_rename_a_glob_and_a_relative_path_are_imports() {
        assert_eq!(imports_of("use crate::other as o;"), ["other"]);
        assert_eq!(imports_of("use super::other::deep::*;"), ["other::deep"]);
        assert_eq!(imports_of("use self::child::A;"), ["here::child"]);
        assert_eq!(imports_of("use child::A;"), ["here::child"]);
    }

    #[test]
    fn a_name_that_is_handed_on_leads_to_the_file_that_declares_it() {
        assert_eq!(imports_of("use crate::other::On;"), ["other::deep"]);
        assert_eq!(imports_of("use crate::other::Handed;"), ["other"]);
        assert_eq!(
            imports_of("fn f() { crate::other::Far::new() }"),
            ["other::deep"]
        );
    }

    #[test]
    fn what_is_only_handed_on_is_told_apart() {
        let texts = [
            (vec!["a"], "pub use crate::b::B; pub(crate) use crate::c;"),
            (vec!["b"], ""),
            (vec!["c"], ""),
        ];
        let texts = texts.map(|(m, t)| (m.into_iter().map(str::to_owned).collect(), t.to_owned()));
        let files = resolve_imports(texts.into_iter().collect());
        assert!(files[0].imports.is_empty());
        assert_eq!(files[0].reexports.len(), 2);
    }

    #[test]
    fn a_path_in_code_or_in_a_macro_is_an_import() {
        assert_eq!(
            imports_of("fn f(a: crate::other::deep::A) {}"),
            ["other::deep"]
        );
        assert_eq!(
            imports_of("fn f() { format!(\"{}\", super::other::f(1)) }"),
            ["other"]
        );
        assert_eq!(imports_of("fn f() { vec![other::f()] }"), [""; 0]);
    }

    #[test]
    fn test_code_text_and_visibility_are_no_imports() {
        let none = [""; 0];
        assert_eq!(
            imports_of("#[cfg(test)] mod tests { use crate::other; }"),
            none
        );
        assert_eq!(imports_of("#[cfg(test)] use crate::other;"), none);
        assert_eq!(
            imports_of("/// crate::other\nfn f() {} // crate::other"),
            none
        );
        assert_eq!(imports_of("pub(in crate::other) fn f() {}"), none);
    }

    #[test]
    fn a_file_declared_for_tests_is_not_read() {
        let texts = [
            (vec![], "#[cfg(test)] mod probe; mod kept;"),
            (vec!["probe"], ""),
            (vec!["probe", "part"], ""),
            (vec!["kept"], ""),
        ];
        let texts = texts.map(|(m, t)| (m.into_iter().map(str::to_owned).collect(), t.to_owned()));
        let files = resolve_imports(texts.into_iter().collect());
        let names: Vec<_> = files.iter().map(|f| f.module.join("::")).collect();
        assert_eq!(names, ["", "kept"]);
    }

    #[test]
    fn a_circle_is_found_and_a_chain_is_none() {
        let arrows = |pairs: &[(u8, u8)]| {
            let mut arrows: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
            for (from, to) in pairs {
                arrows.entry(*from).or_default().insert(*to);
                arrows.entry(*to).or_default();
            }
            circles(&arrows)
        };
        assert!(arrows(&[(1, 2), (2, 3), (1, 3)]).is_empty());
        assert_eq!(
            arrows(&[(1, 2), (2, 3), (3, 1), (3, 4)]),
            [BTreeSet::from([1, 2, 3])]
        );
    }
}

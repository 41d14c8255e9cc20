//! What holds of the text of the sources, the tests and the documents. No test links the library.

mod citations;
mod layers;
mod retired_words;
mod test_programs;

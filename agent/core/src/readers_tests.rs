//! The rules, each with a certificate that has one thing wrong.

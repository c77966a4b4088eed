//! What the compiler cannot hold of the structure of the code: it is read as text.

mod guide;
mod imports;
mod outside;
mod sources;
mod versions;

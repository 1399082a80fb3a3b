use lopdf::content::{Content, Operation};
use lopdf::{Dictionary, Stream, dictionary};

use super::*;
use crate::{BlockKind, Format};

//! Log formats, time and configuration grammars read as evidence

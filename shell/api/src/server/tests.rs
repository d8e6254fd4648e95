//! Tests of the server and the client against each other.

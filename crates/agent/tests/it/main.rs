//! The agent against a real systemd: a private manager per test.

mod systemd;

//! The helpdesk's command line. It talks to one server that it pinned, and to the devices that this server names, each
//! by its very certificate; it never shows, logs or passes on a password, a ticket or a key where others could read it.

pub mod api;
pub mod cli;
pub mod commands;
pub mod config;
pub mod failure;
pub mod shadow;
pub mod surroundings;
pub mod table;
pub mod text;
pub mod trust;

//! The product's promises, kept end to end: the programs that ship, on real parts, in a folder of their own.

mod between;
mod clones;
mod confined;
mod device_port;
mod device_state;
mod enrolment;
mod faults;
mod footprint;
mod gateway;
mod hostile_peer;
mod indicator;
mod onboarding;
mod posture;
mod promises;
mod secrets;
mod server;
mod server_disk;
mod session_faults;
mod shadow;
mod site;
mod state;
mod strangers;
mod tickets;
mod updates;
mod viewers;
mod vnc_refuses;

//! What fuzz targets reach of what is private here. It exists only while fuzzing.

/// Whether a wish is one that is carried out.
pub fn read_wish(bytes: &[u8]) -> bool {
    umbra_protocol::json::from_slice::<super::Asked>(bytes).is_ok()
}

/// Reads what the program that acts as root has answered.
///
/// # Errors
/// Why it did not do it, as a sentence.
pub fn read_answer(bytes: &[u8]) -> Result<String, String> {
    super::read_answer(bytes).map_err(|error| error.to_string())
}

//! A Noise key pair, in rathole's own output format.

use super::Exit;

/// Prints a fresh pair.
pub fn run() -> Exit {
    #[cfg(feature = "noise")]
    {
        use rathole::transport::noise::{Keypair, to_base64};
        use zeroize::Zeroizing;

        let pair = match Keypair::generate() {
            Ok(pair) => pair,
            Err(error) => {
                super::output::complain(&format!("error: cannot make a key: {error}\n"));
                return Exit::Runtime;
            }
        };
        let private = Zeroizing::new(to_base64(pair.private.expose()));
        let public = to_base64(&pair.public);
        let text = Zeroizing::new(format!("Private Key:\n{}\n\nPublic Key:\n{public}\n", *private));
        super::output::print_or(Exit::Ok, &text)
    }
    #[cfg(not(feature = "noise"))]
    super::needs("genkey", "noise")
}

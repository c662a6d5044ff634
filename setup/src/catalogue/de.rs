//! German.

use umbra_protocol::RefusalCode;

use super::Catalogue;
use crate::report::Code;

pub(super) static TEXTS: Catalogue = Catalogue {
    language_name: "Deutsch",
    product: "Umbra-Einrichtung",

    next: "Weiter",
    back: "Zurück",
    cancel: "Abbrechen",
    again: "Erneut versuchen",
    finish: "Fertig",

    language_title: "Sprache",
    language_text: "Dieser Assistent verbindet das Gerät mit seinem Server. Wählen Sie eine Sprache.",
    language_label: "Sprache",

    address_title: "Server finden",
    address_text: "Ihr Administrator hat Ihnen eine Adresse gegeben, oder Ihre E-Mail-Adresse genügt. Wenn Sie einen USB-Stick \
                   mit Zugangsdaten haben, stecken Sie ihn jetzt ein.",
    address_found: "Verbinden mit",
    address_typed: "Adresse eingeben",
    address_typed_detail: "Hostname, IP-Adresse oder E-Mail-Adresse",
    address_label: "Adresse",
    address_hint: "Zum Beispiel gateway.example.com:8443, 192.0.2.10 oder sie@example.com",
    address_search: "Erneut suchen",
    address_check: "Verbindung prüfen",
    address_searching: "Server werden in diesem Netzwerk gesucht …",
    address_nothing: "In diesem Netzwerk wurde kein Server gefunden. Geben Sie die Adresse ein.",
    address_asking: "{domain} wird nach dem Gateway gefragt …",
    address_named: "{domain} nennt {address}. Mit „{check}“ geht es dort weiter.",
    address_not_named: "{domain} nennt kein Gateway. Geben Sie die Adresse ein, die Sie vom Administrator haben.",
    address_stick: "Auf einem USB-Stick wurden Zugangsdaten gefunden. Sie werden nur verwendet, wenn Sie sie auswählen.",
    address_pasted: "Diese Zugangsdaten sind vollständig. Mit „{check}“ geht es weiter.",
    address_not_pasted: "Dieser Text ist weder eine Adresse noch vollständige Zugangsdaten. Kopieren Sie ihn ganz, von den ersten \
                         Strichen bis zu den letzten.",
    address_empty: "Geben Sie eine Adresse ein, oder wählen Sie eine aus der Liste.",
    address_bad_port: "Der Port hinter dem Doppelpunkt muss eine Zahl von 1 bis 65535 sein.",
    address_bad_host: "Das ist kein Hostname und keine IP-Adresse. Vergleichen Sie mit den Angaben Ihres Administrators.",
    address_bad_letters: "Dieser Name enthält Zeichen außerhalb von a–z: {name}. Vergleichen Sie Buchstabe für Buchstabe; wenn er stimmt, geben Sie die Form ohne diese Zeichen ein.",
    address_bad_mail: "Das ist keine E-Mail-Adresse. Sie sieht so aus: sie@example.com.",
    resumed: "Die Einrichtung geht dort weiter, wo sie aufgehört hat.",
    not_stored: "Ihre Eingaben können auf diesem Gerät nicht aufbewahrt werden. Nach einem Stromausfall müssten Sie von vorn \
                 beginnen. Meldung: {sentence}",

    source_configured: "in der Konfiguration dieses Geräts eingetragen",
    source_name: "unter dem Namen {name} im DNS dieses Netzwerks gefunden",
    source_record: "von der Domain {domain} im DNS-Eintrag igel-cloud-gateway genannt",
    source_dhcp: "vom DHCP-Server dieses Netzwerks genannt ({interface})",
    source_stick: "Zugangsdaten aus {file} auf {medium}",
    source_pasted: "Zugangsdaten, die Sie eingefügt haben",

    check_title: "Verbindung prüfen",
    check_text: "Verbindung zu {address}.",
    check_several: "Verbindung zu {address} ({number} von {of}).",
    check_good: "Die Verbindung funktioniert.",
    check_good_after: "Die Verbindung funktioniert. Zuvor: {others}",
    check_compare: "Vergleichen Sie als Nächstes den Fingerabdruck mit Ihren Zugangsdaten.",
    check_failed: "Die Verbindung funktioniert noch nicht. Warum, steht in der fehlgeschlagenen Zeile.",
    check_failed_all: "Noch keine der Adressen funktioniert. {others}",
    check_wrong_root: "Der Server {address} hat ein anderes Stammzertifikat, als die Zugangsdaten nennen. Es kann der falsche Server \
                       sein, oder jemand hat sich dazwischengeschaltet. Machen Sie nicht weiter, und rufen Sie Ihren Administrator an.",
    check_no_root: "Der Server zeigt sein Stammzertifikat nicht; es gibt keinen Fingerabdruck zum Vergleichen. Rufen Sie Ihren \
                    Administrator an: Die Zertifikatskette des Servers muss das Stammzertifikat enthalten.",
    check_other: "Andere Adresse",
    stage_name: "Name",
    stage_tcp: "Netzwerk",
    stage_proxy: "Proxy",
    stage_tls: "Verschlüsselung",
    stage_chain: "Zertifikate",
    stage_gateway: "Gateway",
    stage_server: "Server",
    failed_name: "Der Name ist nicht zu finden. Prüfen Sie Schreibweise und Netzwerk. Meldung: {sentence}",
    failed_tcp: "Dort antwortet niemand. Prüfen Sie Adresse, Port und Netzwerkkabel. Meldung: {sentence}",
    failed_proxy: "Der Proxy lässt die Verbindung nicht zu. Fragen Sie Ihren Administrator. Meldung: {sentence}",
    failed_tls: "Es kommt keine verschlüsselte Verbindung zustande. Meldung: {sentence}",
    failed_chain: "Die Zertifikate sind nicht in Ordnung. Geben Sie diese Meldung Ihrem Administrator: {sentence}",
    failed_gateway: "Das Gateway führt nicht zum Server. Geben Sie diese Meldung Ihrem Administrator: {sentence}",
    failed_server: "Der Server antwortet nicht wie erwartet. Geben Sie diese Meldung Ihrem Administrator: {sentence}",
    stage_warning: "Zu beachten: {sentence}",

    fingerprint_title: "Fingerabdruck vergleichen",
    fingerprint_text: "Ist das der richtige Server? Vergleichen Sie diese Teile mit dem Fingerabdruck des Stammzertifikats in Ihren \
                       Zugangsdaten, und geben Sie den fehlenden Teil von dort ein.",
    fingerprint_differ: "Wenn ein Teil abweicht, machen Sie nicht weiter: Das ist nicht Ihr Server. Rufen Sie Ihren Administrator an.",
    fingerprint_part: "Teil {part}",
    fingerprint_missing: "Teil {part} (eingeben)",
    fingerprint_hint: "16 Zeichen, 0–9 und A–F. Leerzeichen spielen keine Rolle.",
    fingerprint_not_a_part: "Ein Teil hat 16 Zeichen, 0–9 und A–F. Das sind {count}.",
    fingerprint_other_part: "Das ist Teil {other}. Gebraucht wird Teil {part}.",
    fingerprint_wrong: "Das ist nicht Teil {part} des Fingerabdrucks dieses Servers. Lesen Sie noch einmal, Zeichen für Zeichen. \
                        Wenn es so in Ihren Zugangsdaten steht, ist das nicht Ihr Server: Rufen Sie Ihren Administrator an.",
    fingerprint_pause: "{wrong}-mal falsch. Der nächste Versuch ist in {seconds} Sekunden möglich. Wenn Sie eingegeben haben, was in \
                        Ihren Zugangsdaten steht, ist das nicht Ihr Server: Rufen Sie Ihren Administrator an.",
    fingerprint_after_pause: "Sie können es jetzt wieder versuchen.",
    fingerprint_right: "Der Fingerabdruck stimmt.",

    key_title: "Erstauthentifizierungsschlüssel",
    key_text: "Geben Sie den Erstauthentifizierungsschlüssel aus Ihren Zugangsdaten ein, oder fügen Sie ihn ein. Er beweist, dass \
               sich dieses Gerät verbinden darf.",
    key_from_credentials: "Der Schlüssel aus Ihren Zugangsdaten ist eingetragen.",
    key_trust_credentials: "Das Stammzertifikat des Servers ist das, das Ihre Zugangsdaten nennen.",
    key_trust_public: "Das Zertifikat des Servers stammt von einer öffentlichen Zertifizierungsstelle ({name}); ein Fingerabdruck ist \
                       nicht nötig.",
    key_trust_confirmed: "Den Fingerabdruck dieses Servers haben Sie schon verglichen.",
    key_label: "Schlüssel",
    key_hint: "Zum Beispiel 7K2QW-X9D4M-PTR83-HJ5VC. Striche und Leerzeichen spielen keine Rolle.",
    key_log_on: "Anmelden",
    key_empty: "Geben Sie den Schlüssel ein, oder fügen Sie ihn ein.",
    key_too_long: "Das ist zu lang für einen Schlüssel. Er hat höchstens 128 Zeichen.",
    key_not_ascii: "Das enthält Zeichen, die in keinem Schlüssel vorkommen. Geben Sie nur ein, was in den Zugangsdaten steht.",
    key_other_server: "Diese Zugangsdaten gehören zu einem anderen Server. Gehen Sie zurück, und wählen Sie dessen Adresse.",

    log_on_title: "Anmelden",
    log_on_text: "{address} wird gebeten, dieses Gerät aufzunehmen.",
    log_on_refused: "Das hat nicht geklappt. {sentence}",
    log_on_refused_foreign: "Das hat nicht geklappt. Meldung: {sentence}",
    log_on_other_key: "Anderer Schlüssel",
    log_on_connect: "Verbinden",
    log_on_prove: "Schlüssel beweisen",
    log_on_store: "Ergebnis festhalten",
    log_on_online: "Verbunden bleiben",

    ready_title: "Verbindung bereit",
    ready_text: "Dieses Gerät gehört jetzt zu seinem Server. Mehr ist nicht zu tun.",
    ready_no_agent: "Der Agent läuft auf diesem Gerät nicht. Er verbindet sich, sobald er startet.",
    ready_not_yet_title: "Aufgenommen, noch nicht verbunden",
    ready_not_yet: "Der Server hat dieses Gerät aufgenommen. Die Verbindung steht noch nicht; das Gerät versucht es von selbst weiter.",
    ready_server: "Server",
    ready_device: "Gerätename",
    ready_fingerprint: "Fingerabdruck des Stammzertifikats",
    ready_public_ca: "Beglaubigt von",

    leave_title: "Einrichtung verlassen?",
    leave_text: "Dieses Gerät ist noch nicht verbunden. Ihre Eingaben bleiben erhalten, nur der Schlüssel nicht; die Einrichtung geht \
                 dann hier weiter.",
    leave_logging_on: "Das Gerät wird gerade angemeldet. Wenn Sie jetzt gehen, kann ein Einmalschlüssel verbraucht sein.",
    leave_stay: "Bleiben",
    leave_keep: "Verlassen",
    leave_forget: "Verlassen und vergessen",

    belongs_title: "Schon eingerichtet",
    belongs_text: "Dieses Gerät gehört zum Server {address}. Um es mit einem anderen zu verbinden, führen Sie zuerst „umbra-agent leave“ aus.",
    taken_title: "Die Einrichtung läuft schon",
    taken_text: "Ein anderer Einrichtungsassistent ist auf diesem Gerät an der Arbeit: {who}. Machen Sie dort weiter, oder beenden Sie ihn, \
                 und starten Sie diesen neu.",
    taken_somebody: "wo, ist nicht bekannt",

    face_step: "Schritt {number} von {of}",
    face_keys: "Tab oder Pfeile: bewegen · Eingabe: weiter · Esc: zurück · F2: Schlüssel zeigen · Strg-C: verlassen",
    face_busy: "Bitte warten …",
    face_more_above: "weiter oben steht noch mehr (Bild auf)",
    face_more_below: "weiter unten steht noch mehr (Bild ab)",
    face_show: "anzeigen",
    face_hide: "verbergen",
    state_waiting: "wartet",
    state_running: "läuft",
    state_skipped: "entfällt",
    state_good: "gut",
    state_warning: "Warnung",
    state_failed: "fehlgeschlagen",

    window_keys: "Tab oder Pfeile: bewegen · Eingabe: weiter · Esc: zurück · F2: Schlüssel zeigen · Strg und Plus oder Minus: größer oder kleiner",
    window_stopped: "Die Einrichtung ist stehen geblieben",
    window_ended: "Der Einrichtungsassistent hat sich von selbst beendet. Ihre Eingaben bleiben erhalten, nur der Schlüssel nicht. Starten \
                   Sie ihn neu; er macht dort weiter, wo er stehen geblieben ist.",
    window_said: "Sein letztes Wort: {sentence}",
    window_not_started: "Der Einrichtungsassistent {program} lässt sich nicht starten: {sentence}",
    window_unreadable: "Der Einrichtungsassistent hat etwas gesagt, das dieses Fenster nicht lesen kann.",
    window_other_version: "Dieses Fenster und der Einrichtungsassistent haben verschiedene Versionen. Installieren Sie beide aus derselben \
                           Veröffentlichung.",
    window_elsewhere: "Wenn das wieder geschieht: In einem Terminal macht „umbra-agent setup“ dasselbe.",
    window_close: "Schließen",
};

/// What the device, the network or a server has to say.
pub(super) fn wording(code: Code) -> &'static str {
    match code {
        Code::NameNotFound => {
            "Den Namen {host} kennt das Netzwerk nicht. Vergleichen Sie ihn Buchstabe für Buchstabe mit den Angaben Ihres Administrators, und prüfen Sie das Netzwerk."
        }
        Code::NameTimeout => {
            "Das Netzwerk hat nicht rechtzeitig gesagt, wo {host} ist. Prüfen Sie das Netzwerkkabel, und versuchen Sie es noch einmal."
        }
        Code::TcpRefused => {
            "{place} nimmt keine Verbindung an: Unter diesem Port antwortet nichts, oder eine Firewall verbietet es. Vergleichen Sie Adresse und Port mit den Angaben Ihres Administrators."
        }
        Code::TcpUnreachable => {
            "Zu {place} führt kein Weg. Prüfen Sie das Netzwerkkabel und die Adresse."
        }
        Code::Unreachable => {
            "{place} ist nicht zu erreichen. Prüfen Sie Adresse, Port und Netzwerkkabel, und versuchen Sie es noch einmal."
        }
        Code::TcpTimeout => {
            "{place} hat nicht rechtzeitig geantwortet. Prüfen Sie Netzwerkkabel, Adresse und Port; auch eine Firewall kann der Grund sein."
        }
        Code::ProxyUnreachable => {
            "Der Proxy {proxy} ist nicht zu erreichen. Fragen Sie Ihren Administrator."
        }
        Code::ProxyCredentials => {
            "Der Proxy {proxy} verlangt einen anderen Benutzernamen oder ein anderes Passwort, als auf diesem Gerät eingetragen ist. Fragen Sie Ihren Administrator."
        }
        Code::ProxyRefused => {
            "Der Proxy {proxy} erlaubt diese Verbindung nicht. Fragen Sie Ihren Administrator."
        }
        Code::ProxyTargetUnreachable => {
            "Der Proxy {proxy} erreicht diese Adresse nicht. Vergleichen Sie die Adresse mit den Angaben Ihres Administrators."
        }
        Code::ProxyGarbage => {
            "Was unter {proxy} antwortet, ist kein Proxy dieser Art. Fragen Sie Ihren Administrator."
        }
        Code::ProxyClosed => {
            "Der Proxy {proxy} hat die Verbindung beendet. Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }
        Code::ProxyTimeout => {
            "Der Proxy {proxy} hat nicht rechtzeitig geantwortet. Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }
        Code::BadAddress => {
            "{place} ist keine Adresse. Geben Sie einen Hostnamen oder eine IP-Adresse ein."
        }
        Code::TlsSilent => {
            "{place} nimmt die Verbindung an und sagt dann nichts. Vielleicht ist dort kein Server und kein Gateway, oder eine Firewall hält die Verschlüsselung auf. Vergleichen Sie Adresse und Port mit den Angaben Ihres Administrators."
        }
        Code::TlsClosed => {
            "{place} nimmt die Verbindung an und beendet sie gleich wieder. Vielleicht ist dort kein Server und kein Gateway. Vergleichen Sie Adresse und Port mit den Angaben Ihres Administrators."
        }
        Code::NotTls => {
            "Was unter {place} antwortet, spricht nicht verschlüsselt. Vielleicht ist es ein gewöhnlicher Webserver. Vergleichen Sie Adresse und Port mit den Angaben Ihres Administrators."
        }
        Code::WrongService => {
            "Was unter {place} antwortet, ist etwas anderes als ein Server oder Gateway. Vergleichen Sie Adresse und Port mit den Angaben Ihres Administrators."
        }
        Code::Tls => {
            "Mit {place} kommt keine verschlüsselte Verbindung zustande. Vielleicht antwortet etwas dazwischen an Stelle des Servers. Fragen Sie Ihren Administrator."
        }

        Code::ChainLength => {
            "Der Server zeigt kein Zertifikat, oder mehr, als eine echte Kette hat. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainUnreadable => {
            "Ein Zertifikat des Servers ist nicht lesbar. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainOrder => {
            "Die Zertifikate des Servers stehen in falscher Reihenfolge. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainIncomplete => {
            "Zwischen dem Zertifikat des Servers und dem Stammzertifikat fehlt eines. Ihr Administrator muss es auf dem Server ergänzen."
        }
        Code::ChainUnrelated => {
            "Der Server zeigt ein Zertifikat, das nicht zu den anderen gehört. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainRoot => {
            "Das Stammzertifikat des Servers ist ein anderes als das vereinbarte. Machen Sie nicht weiter, und rufen Sie Ihren Administrator an."
        }
        Code::ChainClock => {
            "Die Uhr dieses Geräts geht falsch, deshalb kann es die Zertifikate nicht prüfen. Die Zertifikate selbst sind vielleicht in Ordnung. Stellen Sie Datum und Uhrzeit richtig, und versuchen Sie es noch einmal."
        }
        Code::ChainCaFlag => {
            "Das Zertifikat „{subject}“ bürgt für andere, darf das aber nicht (CA-Kennzeichen). Sagen Sie das Ihrem Administrator."
        }
        Code::ChainKeyUsage => {
            "Das Zertifikat „{subject}“ hat die falsche Schlüsselverwendung. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainPathLength => {
            "Unter dem Zertifikat „{subject}“ stehen mehr Zertifikate, als es erlaubt (Pfadlänge). Sagen Sie das Ihrem Administrator."
        }
        Code::ChainEnd => {
            "Das eigene Zertifikat des Servers, „{subject}“, ist das einer Zertifizierungsstelle. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainNames => {
            "Das Zertifikat „{subject}“ heißt genauso wie sein Aussteller. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainVersion => {
            "Das Zertifikat „{subject}“ hat eine veraltete Form. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainExtensions => {
            "Das Zertifikat „{subject}“ enthält eine wichtige Angabe, die dieses Gerät nicht kennt. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainSignature => {
            "Die Unterschrift unter dem Zertifikat „{subject}“ ist falsch. Machen Sie nicht weiter, und rufen Sie Ihren Administrator an."
        }
        Code::ChainAlgorithm => {
            "Das Zertifikat „{subject}“ ist mit einem Verfahren unterschrieben, das nicht angenommen wird. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainKey => {
            "Das Zertifikat „{subject}“ hat einen zu schwachen oder unbekannten Schlüssel. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainValidity => {
            "Das Zertifikat „{subject}“ ist abgelaufen oder noch nicht gültig. Prüfen Sie Datum und Uhrzeit dieses Geräts; wenn sie stimmen, rufen Sie Ihren Administrator an."
        }
        Code::ChainLifetime => {
            "Das Zertifikat „{subject}“ läuft bald ab. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainPurpose => {
            "Das Zertifikat „{subject}“ ist für einen anderen Zweck gemacht. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainNoHost => {
            "Im Zertifikat „{subject}“ steht nicht, für welche Namen es gilt. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainHost => {
            "Das Zertifikat „{subject}“ gilt nicht für {host}, sondern für andere Namen. Vergleichen Sie die Adresse mit den Angaben Ihres Administrators."
        }
        Code::ChainConstraints => {
            "Eine Zertifizierungsstelle erlaubt den Namen im Zertifikat „{subject}“ nicht. Sagen Sie das Ihrem Administrator."
        }
        Code::ChainRefused => {
            "Die Zertifikate des Servers werden nicht angenommen. Sagen Sie das Ihrem Administrator."
        }
        Code::NoRoot => {
            "Keine öffentliche Zertifizierungsstelle bürgt für diesen Server, und er zeigt sein Stammzertifikat nicht; es gibt also keinen Fingerabdruck zum Vergleichen. Ihr Administrator muss das Stammzertifikat auf dem Server ergänzen."
        }
        Code::BundleFile => {
            "Die Datei mit zusätzlichen Zertifizierungsstellen auf diesem Gerät ist nicht brauchbar. Sagen Sie das Ihrem Administrator."
        }
        Code::ClockDoubtful => {
            "Die Uhr dieses Geräts zeigt {date}; das kann nicht stimmen. Deshalb wurde nicht geprüft, ob die Zertifikate noch gültig sind. Stellen Sie Datum und Uhrzeit richtig."
        }

        Code::GatewayNone => {
            "Was unter {place} antwortet, ist vielleicht ein Webserver und kein Gateway, oder etwas dazwischen lässt die Verbindung nicht durch. Vergleichen Sie Adresse und Port mit den Angaben Ihres Administrators."
        }
        Code::GatewayRefused => {
            "Das Gateway {place} lässt dieses Gerät im Augenblick nicht durch. Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }
        Code::GatewayCertificate => {
            "Das Zertifikat des Gateways {place} ist nicht das erwartete. Es wurde nichts dorthin gesendet. Vergleichen Sie Adresse und Fingerabdruck mit den Angaben Ihres Administrators."
        }
        Code::GatewayTls => {
            "Mit dem Gateway {place} kommt keine verschlüsselte Verbindung zustande. Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }
        Code::GatewayClosed => {
            "Das Gateway {place} hat die Verbindung beendet. Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }
        Code::GatewayLost => {
            "Die Verbindung zum Gateway {place} ist abgebrochen. Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }
        Code::GatewayOtherRoot => {
            "Hinter dem Gateway {place} antwortet ein Server, aber das Zertifikat des Gateways stammt von einer anderen Stelle als das des Servers: Vielleicht liest unterwegs etwas mit. Was Gerät und Server einander sagen, bleibt ihm verborgen. Fragen Sie Ihren Administrator, ob das so sein soll."
        }
        Code::Settings => {
            "Die Einstellungen dieses Geräts für den Proxy sind nicht brauchbar. Sagen Sie das Ihrem Administrator."
        }
        Code::ServerSilent => {
            "Das Gateway {place} funktioniert, aber der Server dahinter sagt nichts. Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }
        Code::ServerFailed => {
            "Das Gateway {place} funktioniert, aber mit dem Server dahinter kommt keine Verbindung zustande. Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }

        Code::DnsLate => {
            "Das Netzwerk hat nicht rechtzeitig geantwortet. Prüfen Sie das Netzwerk, oder geben Sie die Adresse des Servers oder Gateways ein."
        }
        Code::DnsNone => {
            "Dieses Netzwerk nennt keinen DNS-Server. Prüfen Sie das Netzwerk, oder geben Sie die Adresse von Hand ein."
        }
        Code::DnsSilent => {
            "Kein DNS-Server hat rechtzeitig geantwortet (gefragt: {servers}). Prüfen Sie das Netzwerk, oder geben Sie die Adresse von Hand ein."
        }
        Code::DnsGarbage => {
            "Der DNS-Server {server} antwortet mit etwas Unlesbarem. Fragen Sie Ihren Administrator."
        }
        Code::DnsRefused => {
            "Der DNS-Server {server} konnte nicht antworten ({word}). Versuchen Sie es später noch einmal, oder fragen Sie Ihren Administrator."
        }
        Code::DnsCircle => {
            "Der Name {name} verweist im Kreis (CNAME) und führt nirgendwohin. Der Administrator der Domain muss das berichtigen."
        }
        Code::DnsEndless => {
            "Der Name {name} verweist immer weiter (CNAME). Der Administrator der Domain muss das berichtigen."
        }
        Code::DnsName => "{name} kann kein Name im Netzwerk sein.",
        Code::RecordNone => {
            "Die Domain {domain} hat keinen TXT-Eintrag igel-cloud-gateway; über eine E-Mail-Adresse ist das Gateway also nicht zu finden. Vergleichen Sie die Adresse mit den Angaben Ihres Administrators, oder geben Sie die Adresse des Gateways selbst ein."
        }
        Code::NoDomain => {
            "{domain} ist keine Domain. Geben Sie eine E-Mail-Adresse wie sie@example.com ein."
        }
        Code::NoMail => "{text} ist keine E-Mail-Adresse, zu der ein Gateway gesucht werden kann.",
        Code::RecordEmpty => {
            "Der TXT-Eintrag igel-cloud-gateway von {domain} ist leer. Der Administrator der Domain muss ihn berichtigen."
        }
        Code::RecordTooLong => {
            "Der TXT-Eintrag igel-cloud-gateway von {domain} ist länger als jede Adresse. Der Administrator der Domain muss ihn berichtigen."
        }
        Code::RecordNotText => {
            "Der TXT-Eintrag igel-cloud-gateway von {domain} enthält Zeichen, die in keiner Adresse vorkommen. Der Administrator der Domain muss ihn berichtigen."
        }
        Code::RecordNotHttps => {
            "Der TXT-Eintrag igel-cloud-gateway von {domain} beginnt nicht mit https://. Der Administrator der Domain muss ihn berichtigen."
        }
        Code::RecordPath => {
            "Der TXT-Eintrag igel-cloud-gateway von {domain} hat nicht den Pfad eines Gateways. Der Administrator der Domain muss ihn berichtigen."
        }
        Code::RecordExtra => {
            "Der TXT-Eintrag igel-cloud-gateway von {domain} enthält einen Benutzernamen, ein Fragezeichen oder ein Nummernzeichen; das gehört nicht dorthin. Der Administrator der Domain muss ihn berichtigen."
        }
        Code::RecordAddress => {
            "Der TXT-Eintrag igel-cloud-gateway von {domain} nennt keine brauchbare Adresse. Der Administrator der Domain muss ihn berichtigen."
        }
        Code::DhcpUnusable => {
            "Der DHCP-Server dieses Netzwerks nennt einen Server, der nicht brauchbar ist (Option 224, in {file}). Ihr Administrator muss die Option berichtigen."
        }

        Code::FileUnreadable => {
            "Die Datei {file} ist nicht lesbar. Kopieren Sie sie noch einmal auf den Stick."
        }
        Code::FileTooLong => {
            "Die Datei {file} ist größer als 64 KiB; das sind keine Zugangsdaten. Nehmen Sie die Datei icg.xml oder icg.txt, die Sie vom Administrator haben."
        }
        Code::FileEmpty => "Die Datei {file} ist leer. Kopieren Sie sie noch einmal auf den Stick.",
        Code::FileNotText => {
            "Die Datei {file} ist keine Textdatei. Kopieren Sie sie noch einmal auf den Stick."
        }
        Code::FileHtml => {
            "Die Datei {file} ist die Seite zum Ausdrucken. Nehmen Sie stattdessen icg.xml oder icg.txt."
        }
        Code::FileTruncated => {
            "Die Datei {file} hört mittendrin auf. Kopieren Sie sie noch einmal auf den Stick."
        }
        Code::FileDamaged => {
            "Die Datei {file} ist beschädigt. Kopieren Sie sie noch einmal auf den Stick."
        }
        Code::FileForeign => {
            "Die Datei {file} enthält etwas, das in Zugangsdaten nie vorkommt. Nehmen Sie die Datei icg.xml oder icg.txt, die Sie vom Administrator haben."
        }
        Code::FileVersion => {
            "Die Datei {file} ist für eine neuere Version dieses Programms gemacht. Bitten Sie Ihren Administrator um die Datei icg.txt."
        }
        Code::FileLacks => {
            "In der Datei {file} fehlt etwas. Kopieren Sie sie noch einmal, von der ersten bis zur letzten Zeile."
        }
        Code::FileAddress => {
            "In der Datei {file} steht keine brauchbare Adresse. Bitten Sie Ihren Administrator um neue Zugangsdaten."
        }
        Code::FileFingerprint => {
            "In der Datei {file} steht kein vollständiger Fingerabdruck. Bitten Sie Ihren Administrator um neue Zugangsdaten."
        }
        Code::FileKey => {
            "In der Datei {file} steht kein brauchbarer Schlüssel. Bitten Sie Ihren Administrator um neue Zugangsdaten."
        }

        Code::KeyForm => {
            "Das ist kein Schlüssel. Vergleichen Sie ihn Zeichen für Zeichen mit Ihren Zugangsdaten."
        }
        Code::WrongFingerprint => {
            "Das Stammzertifikat dieses Servers ist nicht das mit Ihrem Fingerabdruck. Es wurde nichts dorthin gesendet. Vergleichen Sie Adresse und Fingerabdruck mit den Angaben Ihres Administrators: Vielleicht antwortet ein anderer Server."
        }
        Code::WrongName => {
            "Das Zertifikat des Servers gilt nicht für diese Adresse. Es wurde nichts dorthin gesendet. Vergleichen Sie die Adresse mit den Angaben Ihres Administrators."
        }
        Code::CertificateDates => {
            "Ein Zertifikat des Servers ist abgelaufen oder noch nicht gültig. Es wurde nichts dorthin gesendet. Prüfen Sie zuerst Datum und Uhrzeit dieses Geräts."
        }
        Code::NotPublic => {
            "Keine öffentliche Zertifizierungsstelle bürgt für diesen Server. Es wurde nichts dorthin gesendet. Bitten Sie Ihren Administrator um den Fingerabdruck des Stammzertifikats."
        }
        Code::FingerprintRequired => {
            "Auf diesem Gerät muss der Fingerabdruck des Stammzertifikats angegeben werden. Es wurde nichts gesendet. Bitten Sie Ihren Administrator darum."
        }
        Code::TimedOut => {
            "Der Server hat nicht rechtzeitig geantwortet. Versuchen Sie es noch einmal mit demselben Schlüssel; er zählt für dieses Gerät nur einmal."
        }
        Code::ConnectionLost => {
            "Die Verbindung ist abgebrochen, bevor der Server das Gerät aufgenommen hat. Versuchen Sie es noch einmal mit demselben Schlüssel; er zählt für dieses Gerät nur einmal."
        }
        Code::ServerNotProven => {
            "Der Server konnte nicht zeigen, dass er den Schlüssel kennt; deshalb vertraut ihm dieses Gerät nicht. Achten Sie darauf, dass Adresse, Fingerabdruck und Schlüssel aus denselben Zugangsdaten stammen."
        }
        Code::Protocol => {
            "Der Server antwortet anders, als vereinbart ist. Sagen Sie das Ihrem Administrator."
        }
        Code::BadRoots => {
            "Der Server nennt Stammzertifikate, die nicht brauchbar sind. Sagen Sie das Ihrem Administrator."
        }
        Code::NotStored => {
            "Der Server hat dieses Gerät aufgenommen, aber das konnte hier nicht gespeichert werden. Schaffen Sie Platz auf dem Datenträger, und melden Sie das Gerät mit demselben Schlüssel noch einmal an."
        }
        Code::Disk => {
            "Auf dem Datenträger dieses Geräts kann nicht gespeichert werden. Vielleicht ist er voll."
        }
        Code::Agent => {
            "Das Programm, das dieses Gerät mit dem Server verbindet, antwortet nicht. Starten Sie das Gerät neu, oder rufen Sie Ihren Administrator an."
        }
        Code::DeviceFiles => {
            "Eigene Dateien dieses Geräts sind nicht lesbar oder beschädigt. Rufen Sie Ihren Administrator an."
        }
        Code::Refusal(code) => refusal(code),
    }
}

/// What the server or the gateway says no with.
fn refusal(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::UnsupportedVersion => {
            "Der Server und dieses Gerät haben keine gemeinsame Version. Eines von beiden muss aktualisiert werden; rufen Sie Ihren Administrator an."
        }
        RefusalCode::Malformed => {
            "Der Server konnte dieses Gerät nicht verstehen. Rufen Sie Ihren Administrator an."
        }
        RefusalCode::TooLarge => {
            "Dieses Gerät hat dem Server mehr gesendet, als er annimmt. Rufen Sie Ihren Administrator an."
        }
        RefusalCode::UnknownMessage => {
            "Der Server kennt eine Nachricht dieses Geräts nicht. Versuchen Sie es später noch einmal."
        }
        RefusalCode::UnexpectedMessage => {
            "Der Server hat eine andere Nachricht erwartet. Versuchen Sie es noch einmal."
        }
        RefusalCode::TooSlow => {
            "Dieses Gerät war dem Server zu langsam. Versuchen Sie es noch einmal."
        }
        RefusalCode::Busy => {
            "Der Server hat gerade zu viel zu tun. Versuchen Sie es in ein paar Minuten noch einmal."
        }
        RefusalCode::Throttled => {
            "Von hier kamen zu viele falsche Versuche. Warten Sie ein paar Minuten, bevor Sie es noch einmal versuchen."
        }
        RefusalCode::ShuttingDown => {
            "Der Server startet gerade neu. Versuchen Sie es in ein paar Minuten noch einmal."
        }
        RefusalCode::Internal => {
            "Im Server ist ein Fehler aufgetreten. Versuchen Sie es später noch einmal, oder rufen Sie Ihren Administrator an."
        }
        RefusalCode::KeyNotAccepted => {
            "Der Server kennt diesen Schlüssel nicht. Vergleichen Sie ihn Zeichen für Zeichen mit Ihren Zugangsdaten."
        }
        RefusalCode::KeyUsed => {
            "Dieser Schlüssel gilt nur einmal und ist schon verbraucht. Bitten Sie Ihren Administrator um einen neuen."
        }
        RefusalCode::KeyExpired => {
            "Dieser Schlüssel ist abgelaufen. Bitten Sie Ihren Administrator um einen neuen."
        }
        RefusalCode::KeyRevoked => {
            "Dieser Schlüssel wurde zurückgezogen. Bitten Sie Ihren Administrator um einen neuen."
        }
        RefusalCode::KeyDisabled => {
            "Dieser Schlüssel ist zurzeit gesperrt. Bitten Sie Ihren Administrator, ihn freizugeben, oder um einen anderen."
        }
        RefusalCode::KeyForOtherUnit => {
            "Dieser Schlüssel ist für ein anderes Gerät bestimmt. Bitten Sie Ihren Administrator um einen Schlüssel für dieses Gerät."
        }
        RefusalCode::KeyQuota => {
            "Mit diesem Schlüssel wurden schon so viele Geräte angemeldet, wie er erlaubt. Bitten Sie Ihren Administrator um einen anderen."
        }
        RefusalCode::UnknownDevice => {
            "Der Server kennt dieses Gerät nicht. Rufen Sie Ihren Administrator an."
        }
        RefusalCode::CertificateMismatch => {
            "Der Server kennt ein anderes Gerät mit derselben Kennung; vielleicht wurde dieses hier neu installiert. Ihr Administrator muss den Wechsel erlauben. Danach melden Sie es mit demselben Schlüssel noch einmal an."
        }
        RefusalCode::DeviceRemoved => {
            "Ihr Administrator hat dieses Gerät vom Server entfernt. Bitten Sie ihn um einen neuen Schlüssel."
        }
        RefusalCode::Superseded => {
            "Eine neuere Verbindung desselben Geräts hat diese abgelöst. Versuchen Sie es noch einmal."
        }
        RefusalCode::ServerUnreachable | RefusalCode::NoServer => {
            "Das Gateway hat gerade keine Verbindung zum Server. Versuchen Sie es später noch einmal, oder rufen Sie Ihren Administrator an."
        }
        RefusalCode::ConnectionLimit => {
            "Das Gateway bedient schon so viele Geräte, wie es darf. Versuchen Sie es später noch einmal, oder rufen Sie Ihren Administrator an."
        }
        // Sessions begin long after a device was brought in: it is enough that these are told in German.
        RefusalCode::TicketInvalid
        | RefusalCode::TicketExpired
        | RefusalCode::TicketUsed
        | RefusalCode::TicketForOtherDevice
        | RefusalCode::PasswordWrong
        | RefusalCode::NoPreface
        | RefusalCode::SessionWithdrawn
        | RefusalCode::TooManySessions
        | RefusalCode::ShadowingDisabled
        | RefusalCode::SecureModeRequired
        | RefusalCode::ConsentDenied
        | RefusalCode::ConsentTimeout
        | RefusalCode::NobodyToAsk
        | RefusalCode::IndicatorUnavailable
        | RefusalCode::VncServerAbsent
        | RefusalCode::VncServerRefused
        | RefusalCode::TunnelUnknown
        | RefusalCode::TunnelUsed
        | RefusalCode::TunnelExpired
        | RefusalCode::TunnelWrongSide => {
            "Die Sitzung wurde abgelehnt. Versuchen Sie es noch einmal, oder rufen Sie Ihren Administrator an."
        }
        RefusalCode::Unknown => {
            "Der Server hat aus einem Grund abgelehnt, den dieses Gerät nicht kennt. Rufen Sie Ihren Administrator an."
        }
    }
}

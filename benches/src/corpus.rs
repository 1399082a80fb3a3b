//! Knowledge and questions, made up from a number so that every run has the same.

/// What the made-up company writes about.
const SUBJECTS: &[&str] = &[
    "warranty",
    "delivery",
    "invoice",
    "return",
    "subscription",
    "installation",
    "maintenance",
    "training",
    "insurance",
    "export",
];

const PLACES: &[&str] = &[
    "Aldermoor",
    "Brightwater",
    "Castlereagh",
    "Dunmore",
    "Eastvale",
    "Fernhill",
    "Glenrock",
];

/// What a section of ten sentences is cut into.
const CHUNKS_PER_SECTION: usize = 2;

/// One short document of a single chunk, of about 60 words.
pub fn short_document(number: usize) -> (String, String) {
    let (subject, product, place) = names(number);
    let text = format!(
        "The {subject} of {product} is looked after by the office in {place}. \
         Customers ask for it in writing and hear back within {} working days. \
         The fee is {} euros, and it is waived for orders above {} euros. \
         Whoever needs the {subject} of {product} sooner calls extension {} and names the order number; \
         nothing else is needed.\n",
        2 + number % 9,
        5 + number % 83,
        100 + number % 900,
        1000 + number,
    );
    (format!("{product}-{subject}.txt"), text)
}

/// A document of about `chunks` chunks under headings.
pub fn long_document(number: usize, chunks: usize) -> (String, String) {
    let mut text = format!("# Handbook {number}\n\n");
    for section in 0..chunks / CHUNKS_PER_SECTION {
        let (subject, product, place) = names(number * 1_000 + section);
        text.push_str(&format!("## {product} in {place}\n\n"));
        for sentence in 0..10 {
            text.push_str(&format!(
                "Paragraph {sentence} on the {subject} of {product}: the office in {place} keeps file {} and answers \
                 within {} days, whatever the season. ",
                number * 31 + section * 7 + sentence,
                1 + (section + sentence) % 28,
            ));
        }
        text.push_str("\n\n");
    }
    (format!("handbook-{number}.md"), text)
}

/// A question that the document of this number answers.
pub fn question(number: usize) -> String {
    let (subject, product, _) = names(number);
    format!("How long does the {subject} of {product} take, and what is the fee?")
}

fn names(number: usize) -> (&'static str, String, &'static str) {
    let subject = SUBJECTS[number % SUBJECTS.len()];
    (
        subject,
        format!("Zorvex{}", number / SUBJECTS.len()),
        PLACES[number % PLACES.len()],
    )
}

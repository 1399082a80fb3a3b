//! When the service answers and when it says that it knows nothing: by the same confidence in every language, also where
//! words alone tell.

use serde_json::json;

use crate::harness::app::TestOptions;

/// What is known, a question that it answers with a part of the answer, and one about something else.
struct Known {
    language: &'static str,
    documents: [&'static str; 2],
    question: (&'static str, &'static str),
    about_else: &'static str,
}

const KNOWN: [Known; 6] = [
    Known {
        language: "en",
        documents: [
            "Shipping takes three working days and costs five euros.",
            "Goods may be returned within thirty days.",
        ],
        question: ("How long does shipping take?", "three working days"),
        about_else: "Which cats sleep in gardens near dogs?",
    },
    Known {
        language: "de",
        documents: [
            "Der Versand dauert drei Werktage und kostet fünf Euro.",
            "Die Ware kann innerhalb von dreißig Tagen zurückgegeben werden.",
        ],
        question: ("Wie lange dauert der Versand?", "drei Werktage"),
        about_else: "Wie wird das Wetter morgen in Berlin?",
    },
    Known {
        language: "es",
        documents: [
            "El envío tarda tres días laborables y cuesta cinco euros.",
            "Los artículos se pueden devolver durante un mes.",
        ],
        question: ("¿Cuánto tarda el envío?", "tres días laborables"),
        about_else: "¿Qué tiempo hará mañana en Madrid?",
    },
    Known {
        language: "ru",
        documents: [
            "Доставка занимает три рабочих дня и стоит пять евро.",
            "Товар можно вернуть в течение месяца.",
        ],
        question: ("Сколько времени занимает доставка?", "три рабочих дня"),
        about_else: "Какая погода будет завтра в Москве?",
    },
    Known {
        language: "zh",
        documents: ["配送需要三个工作日，费用为五欧元。", "您可以在三十天内退货。"],
        question: ("配送需要多久？", "三个工作日"),
        about_else: "明天的天气怎么样？",
    },
    Known {
        language: "ar",
        documents: [
            "يستغرق التوصيل ثلاثة أيام عمل ويكلف خمسة يورو.",
            "يمكن إرجاع المنتجات خلال شهر.",
        ],
        question: ("كم يستغرق التوصيل؟", "ثلاثة أيام"),
        about_else: "كيف سيكون الطقس غدا في باريس؟",
    },
];

#[tokio::test]
async fn by_words_alone_questions_are_answered_and_declined_in_every_language() {
    let service = TestOptions::default().without_embedder().start().await;
    for Known {
        language,
        documents,
        question: (question, part),
        about_else,
    } in KNOWN
    {
        let tenant = service.tenant(language).await;
        let desk = tenant.chatbot("Desk").await;
        for (number, text) in documents.iter().enumerate() {
            desk.publish(&format!("{number}.md"), text).await;
        }

        let known = desk.ask(question).await.expect(200).json();
        let unknown = desk.ask(about_else).await.expect(200).json();

        assert_eq!(known["source"], "extractive", "{language}: {known}");
        let text = known["answer"].as_str().expect("an answer");
        assert!(text.contains(part), "{language}: {text}");
        assert_eq!(unknown["source"], "no_answer", "{language}: {unknown}");
    }
}

#[tokio::test]
async fn an_owner_who_asks_for_nothing_is_given_whatever_was_found() {
    let service = TestOptions::default().without_embedder().start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", "Goods may be returned within thirty days.")
        .await;
    let question = "Which composer of the last century wrote seven pieces within thirty minutes?";
    let strict = desk.ask(question).await.expect(200).json();
    assert_eq!(strict["source"], "no_answer", "{strict}");

    acme.patch(
        &format!("/api/chatbots/{}", desk.id),
        json!({ "min_similarity": 0 }),
    )
    .await
    .expect(200);

    let lenient = desk.ask(question).await.expect(200).json();
    assert_eq!(lenient["source"], "extractive", "{lenient}");
}

#[tokio::test]
async fn a_product_is_known_by_the_short_name_that_is_in_its_code() {
    let service = TestOptions::default().start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("headphones.md", "The WH-1000XM5 is sold for 349 euros in black.")
        .await;
    desk.publish("cases.md", "Cases of any make are sold for 19 euros.")
        .await;

    let known = desk.ask("how much is the XM5?").await.expect(200).json();
    let of_its_kind = desk.ask("how much is the XM4?").await.expect(200).json();

    assert_eq!(known["citations"][0]["title"], "headphones.md", "{known}");
    assert_eq!(of_its_kind["source"], "no_answer", "{of_its_kind}");
}

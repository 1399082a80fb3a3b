//! How near texts are to a model that have nothing to do with each other.
//!
//! Some models put them at right angles, others have a cosine of 0.7 between any two texts. What a cosine says can only be
//! told from there, and a tenant with a few chunks has no others to tell it by. So it is measured on sentences that never
//! change, of which no two are about the same thing.

use super::{Asker, EmbedError, Embedder};
use crate::analysis::Language;

/// Sentences such as a help page has, by language: pairs within one are compared, since that is what a search does.
const SENTENCES: &[(Language, &[&str])] = &[
    (
        Language::English,
        &[
            "The swimming pool is open from six in the morning until nine in the evening.",
            "Our accountants close the books of each quarter within ten working days.",
            "Tomatoes need at least six hours of sun a day and should be watered at the root.",
            "The router restarts by itself once its new firmware has been installed.",
            "Her second novel tells the story of two brothers who cross the desert on foot.",
            "Children under the age of five travel on the train without a ticket.",
            "The vaccine protects for about ten years and then has to be given again.",
            "Loose screws on the saw blade are tightened with the key in the handle.",
        ],
    ),
    (
        Language::German,
        &[
            "Der Chor probt jeden Dienstag im Saal der alten Schule.",
            "Das Fahrwerk wird alle zwei Jahre von einem Fachbetrieb geprüft.",
            "Die Miete ist bis zum dritten Werktag eines Monats zu zahlen.",
        ],
    ),
    (
        Language::Spanish,
        &[
            "Las naranjas del huerto se recogen a mano cuando ya están maduras.",
            "El examen de ingreso tiene una parte escrita y también una entrevista.",
            "Las lluvias de abril llenaron los embalses que están en el norte.",
        ],
    ),
    (
        Language::Russian,
        &[
            "Музей закрыт по понедельникам и в праздничные дни.",
            "Двигатель нужно прогреть до начала работы, если на улице мороз.",
            "Заявление на отпуск нужно подать за две недели до того, как он начинается.",
        ],
    ),
    (
        Language::Chinese,
        &[
            "这座桥建于明代，全长二百多米。",
            "电池充满电大约需要三个小时。",
            "合唱团每周五晚上在礼堂排练。",
        ],
    ),
];

/// The mean cosine between sentences of one language, of those that the model reads; of English where it reads none of
/// these. Embeds twenty sentences at most, in one call.
pub(super) async fn measure<E: Embedder + ?Sized>(embedder: &E) -> Result<f32, EmbedError> {
    let reads = |language: &Language| {
        let read = embedder.languages();
        read.is_none_or(|read| read.contains(language))
    };
    let mut compared: Vec<&[&str]> = SENTENCES
        .iter()
        .filter(|(language, _)| reads(language))
        .map(|(_, sentences)| *sentences)
        .collect();
    if compared.is_empty() {
        compared.push(SENTENCES[0].1);
    }
    let texts: Vec<String> = compared
        .iter()
        .flat_map(|sentences| sentences.iter().map(|sentence| (*sentence).to_owned()))
        .collect();
    let asked = texts.len();
    let vectors = embedder.embed_documents(Asker::Service, texts).await?.vectors;
    if vectors.len() != asked {
        return Err(EmbedError::BadVectors {
            reason: format!("{} vectors for {asked} texts", vectors.len()),
        });
    }
    let mut rest = vectors.as_slice();
    let (mut sum, mut pairs) = (0.0, 0.0);
    for sentences in compared {
        let (of_language, others) = rest.split_at(sentences.len());
        rest = others;
        for (place, one) in of_language.iter().enumerate() {
            for other in &of_language[place + 1..] {
                sum += one.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
                pairs += 1.0;
            }
        }
    }
    Ok(sum / pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BoxFuture;
    use crate::embed::Embeddings;

    /// A model to which all texts have the same cosine, apart from those of one language, which are alike.
    struct Scripted {
        reads: Option<Vec<Language>>,
        base: f32,
        alike: Option<Language>,
    }

    impl Embedder for Scripted {
        fn model_id(&self) -> &str {
            "scripted"
        }

        fn dimension(&self) -> usize {
            32
        }

        fn max_tokens(&self) -> usize {
            100
        }

        fn languages(&self) -> Option<&[Language]> {
            self.reads.as_deref()
        }

        fn count_tokens(&self, text: &str) -> usize {
            text.len()
        }

        fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
            self.embed_documents(asker, vec![text])
        }

        fn embed_documents(
            &self,
            _asker: Asker,
            texts: Vec<String>,
        ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
            let of = |language| SENTENCES.iter().find(|(of, _)| *of == language);
            let alike = self
                .alike
                .and_then(of)
                .map_or(&[][..], |(_, sentences)| sentences);
            let vector = |(place, text): (usize, &String)| {
                let mut vector = vec![0.0; self.dimension()];
                vector[0] = self.base.sqrt();
                let own = if alike.contains(&text.as_str()) { 0 } else { place };
                vector[own + 1] = (1.0 - self.base).sqrt();
                vector
            };
            let embeddings = Embeddings {
                vectors: texts.iter().enumerate().map(vector).collect(),
                tokens: 0,
                reported: false,
            };
            Box::pin(async move { Ok(embeddings) })
        }
    }

    async fn measured(reads: Option<Vec<Language>>, alike: Option<Language>) -> f32 {
        let model = Scripted {
            reads,
            base: 0.75,
            alike,
        };
        model.unrelated().await.expect("a figure")
    }

    #[tokio::test]
    async fn a_model_whose_cosines_are_all_high_says_so() {
        assert!((measured(None, None).await - 0.75).abs() < 1e-5);
    }

    #[tokio::test]
    async fn languages_that_the_model_does_not_read_tell_nothing() {
        let english = || Some(vec![Language::English]);

        assert!(measured(None, Some(Language::Chinese)).await > 0.76);
        assert!((measured(english(), Some(Language::Chinese)).await - 0.75).abs() < 1e-5);
        assert!((measured(Some(vec![Language::Thai]), None).await - 0.75).abs() < 1e-5);
    }

    #[test]
    fn each_sentence_is_in_its_language() {
        for (language, sentences) in SENTENCES {
            for sentence in *sentences {
                assert_eq!(crate::analysis::detect(sentence), Some(*language), "{sentence}");
            }
        }
    }
}

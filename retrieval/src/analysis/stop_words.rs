//! Function words of each language that we have rules for: what carries no topic, and by which a language is told.
//!
//! Articles, pronouns, prepositions, conjunctions, auxiliaries and the words that questions are asked with. Written as
//! their language writes them.

use std::sync::LazyLock;

use super::fold::{fold, fold_but_accents};
use super::language::Language;
use super::script::Script;

/// The function words of `language`, parted by spaces.
pub(super) fn of(language: Language) -> &'static str {
    match language {
        Language::Arabic => ARABIC,
        Language::Czech => CZECH,
        Language::Danish => DANISH,
        Language::Dutch => DUTCH,
        Language::English => ENGLISH,
        Language::Finnish => FINNISH,
        Language::French => FRENCH,
        Language::German => GERMAN,
        Language::Greek => GREEK,
        Language::Hebrew => HEBREW,
        Language::Hindi => HINDI,
        Language::Hungarian => HUNGARIAN,
        Language::Italian => ITALIAN,
        Language::Norwegian => NORWEGIAN,
        Language::Persian => PERSIAN,
        Language::Polish => POLISH,
        Language::Portuguese => PORTUGUESE,
        Language::Romanian => ROMANIAN,
        Language::Russian => RUSSIAN,
        Language::Spanish => SPANISH,
        Language::Swedish => SWEDISH,
        Language::Turkish => TURKISH,
        Language::Ukrainian => UKRAINIAN,
        Language::Vietnamese => VIETNAMESE,
        Language::Armenian
        | Language::Chinese
        | Language::Japanese
        | Language::Korean
        | Language::Tamil
        | Language::Thai => "",
    }
}

/// The function words of `language` as they are typed, folded but for their accents: with these, and but for Vietnamese
/// without them.
pub(super) fn typed(language: Language) -> impl Iterator<Item = String> {
    let words = of(language).split_whitespace();
    words.flat_map(move |word| {
        let is_typed_without = language != Language::Vietnamese;
        std::iter::once(fold_but_accents(word)).chain(is_typed_without.then(|| fold(word)))
    })
}

/// A folded question without the words that only ask, in scripts that put no spaces around them: pairs of characters
/// across their edges would be asked for.
pub(super) fn without_question_words(folded: String) -> String {
    if !folded.contains(Script::has_no_word_spaces) {
        return folded;
    }
    let mut kept = String::with_capacity(folded.len());
    let mut rest = folded.as_str();
    while let Some(first) = rest.chars().next() {
        match QUESTION_WORDS.iter().find(|word| rest.starts_with(word.as_str())) {
            Some(word) => {
                kept.push(' ');
                rest = &rest[word.len()..];
            }
            None => {
                kept.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    if kept.contains(Script::has_no_word_spaces) {
        kept
    } else {
        folded
    }
}

/// Longer ones first: some begin with others.
static QUESTION_WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let languages = [
        CHINESE_QUESTIONS,
        JAPANESE_QUESTIONS,
        KOREAN_QUESTIONS,
        THAI_QUESTIONS,
    ];
    let mut words: Vec<String> = languages
        .iter()
        .flat_map(|words| words.split_whitespace())
        .map(fold)
        .collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    words
});

const CHINESE_QUESTIONS: &str = "什么时候 什么 什麼 为什么 為什麼 怎么样 怎么 怎麼 怎样 怎樣 如何 哪个 哪個 哪些 哪里 哪裡 哪儿 哪一 哪 多少 多久 \
    几个 幾個 谁 誰 吗 嗎 呢 请问 請問";

const JAPANESE_QUESTIONS: &str = "何ですか ですか ますか でしょうか ください 教えて いつ どこ どの どれ どう どんな なぜ いくら いくつ 誰 何";

const KOREAN_QUESTIONS: &str =
    "무엇 언제 어디 누구 왜 어떻게 어떤 얼마 몇 입니까 습니까 인가요 하나요 있나요 되나요";

const THAI_QUESTIONS: &str = "อะไร ที่ไหน เมื่อไหร่ เมื่อไร ใคร ทำไม อย่างไร ยังไง เท่าไหร่ เท่าไร กี่ หรือไม่ ไหม ครับ ค่ะ คะ";

const ARABIC: &str = "في من على إلى الى عن مع بين حتى منذ خلال بعد قبل عند لدى ضد حول دون تحت فوق أمام وراء هو هي هم هما هن أنت \
    أنا نحن انت انا هذا هذه ذلك تلك هؤلاء أولئك الذي التي الذين اللذان اللتان اللواتي ما ماذا متى أين اين كيف كم هل لماذا لما أي اي أية \
    أيّ ايه من مَن ومن وما وهو وهي و أو او ثم أم ام بل لكن لكنّ إن ان أن أنّ إنّ إذا اذا لو لولا كما كان كانت كانوا يكون تكون ليس ليست \
    قد لقد سوف كل بعض غير أكثر اكثر أقل جدا أيضا ايضا لا لم لن له لها لهم به بها بهم فيه فيها منه منها عليه عليها إليه إليها ";

const CZECH: &str = "a aby aj ale ani asi až bez bude budou by byl byla byli bylo být co či další do ho i já jak jaká jaké jaký jako je \
    jeho jej její jejich jen jenž ještě ji jsem jsme jsou jste již k kam kde kdo kdy když která které který kteří ke kolik kterou ma má \
    máme mezi mi mít mně mnou můj může my na nad nám náš ne nebo není než ní nic o od on ona oni ono pak po pod podle pokud pouze právě \
    pro proč proto protože před přes při s se si sice své svůj svých ta tak také tato té tedy ten tento teto tím to tohle toho tom tomto \
    tu tuto ty tyto u už v vám váš ve více však vy z za zda ze že";

const DANISH: &str = "af aldrig alle alt at bare begge blev blive bliver da de dem den denne der deres det dette dig din disse dog du \
    efter ej eller en end er et findes for fordi fra få før gør ham han hans har havde have hende hendes her hos hun hvad hvem hver \
    hvilke hvilken hvilket hvis hvor hvordan hvorfor hvornår i ikke ind ingen intet jeg jer jeres kan kunne man mange med meget men mig \
    min mod må ned noget nogen nogle nu når og også om op os over på samt selv sig sin sit skal skulle som sådan thi til ud under var ved \
    vi vil ville vor være været";

const DUTCH: &str = "aan al alle alles als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus een en er ge geen \
    geweest haar had heb hebben heeft hem het hier hij hoe hoeveel hun iemand iets ik in is ja je jou jouw kan kon kunnen maar me meer \
    men met mij mijn moet na naar niet niets nog nu of om omdat ons onze ook op over reeds te tegen toch toen tot u uit uw van veel voor \
    waar waarom waarin wanneer want waren was wat we wel welk welke werd wezen wie wij wil worden wordt zal ze zei zelf zich zij zijn zo \
    zonder zou zullen";

const ENGLISH: &str = "a about after all also am an and any are as at be because been before being between both but by can could did do \
    does doing during each for from further get give had has have having he her here hers him his how i if in into is it its itself just \
    many me might more most much must my no nor not of off on once one only or other our ours out over own please shall she should so \
    some such tell than that the their theirs them then there these they this those through to too under until up us very was we were \
    what when where which while who whom whose why will with would yes you your yours";

const FINNISH: &str = "ei eivät ei että he heidän heitä hän hänen häntä ja jo joka joiden joita jonka jos jossa jota jotka kanssa keitä \
    ketkä ketä kuin kuinka kuka kun kuten me meidän meitä miksi mikä mille millainen milloin minkä minun minä missä mistä mitkä mitä \
    monta mukaan mutta ne niiden niin niitä noin nuo nyt näiden näitä nämä olen olet oli olivat olla olleet ollut on ovat se sekä sen \
    siinä sinun sinä sitä tai te teidän tuo tuota tämä tämän tätä vaan vai vain voi voidaan";

const FRENCH: &str = "à afin ai ainsi alors après as au aucun aussi autre aux avait avant avec avez avoir avons ayant c car ce ceci cela \
    celle celles celui ces cet cette ceux chaque chez ci combien comme comment d dans de depuis des donc dont du elle elles en encore \
    entre es est et étaient était étant été être eu eux fait font fut hors il ils j je jusqu l la laquelle le lequel les lesquelles \
    lesquels leur leurs lors lorsque lui là m ma mais me même mes moi moins mon n ne ni non nos notre nous on ont ou où par parce pas \
    pendant peu peut peuvent plus plusieurs pour pourquoi puis qu quand que quel quelle quelles quels qui quoi s sa sans se selon sera \
    ses si soit son sont sous sur t ta te tes toi ton tous tout toute toutes très tu un une vers vos votre vous y";

const GERMAN: &str = "aber alle allem allen aller alles als also am an andere anderen auch auf aus bei beim bin bis bist da damit dann das \
    dass daß dein deine dem den denen denn der deren des dessen deshalb die dies diese diesem diesen dieser dieses doch dort du durch ein \
    eine einem einen einer eines er es etwa etwas euch euer für gegen gewesen gibt hat hatte hatten habe haben hier hin hinter ich ihm \
    ihn ihnen ihr ihre ihrem ihren ihrer im in indem ins ist ja jede jedem jeden jeder jedes jener kann kein keine keinem keinen keiner \
    können könnte machen man manche mein meine mich mir mit muss musste nach nein nicht nichts noch nun nur ob oder ohne sehr sein seine \
    seinem seinen seiner seit selbst sich sie sind so solche soll sollte sondern sonst über um und uns unser unsere unter viel viele vom \
    von vor wann war waren warum was wegen weil welche welchem welchen welcher welches wem wen wenn wer werde werden wessen wie wieder \
    wieviel will wir wird wirst wo wobei woher wohin womit wurde wurden würde während zu zum zur zwar zwischen";

const GREEK: &str = "ο η το οι τα του της των τον την τους τις ένα ένας μια μία ενός μιας και ή είναι ήταν να θα δεν δε μη μην με σε στο \
    στη στην στον στους στις στα από για προς κατά μετά παρά αντί χωρίς ως έως πριν που πού πως πώς πότε ποιος ποια ποιο ποιοι ποιες \
    ποιον ποιους τι γιατί πόσο πόσα πόσοι πόσες αυτός αυτή αυτό αυτοί αυτές αυτά αυτού αυτής εγώ εσύ εμείς εσείς μου σου μας σας όταν αν \
    αλλά όμως όπως ότι διότι επίσης έχει έχουν είχε είχαν έχω υπάρχει υπάρχουν κάθε όλα όλοι όλες";

const HEBREW: &str = "של על את עם אל מן בין עד לפני אחרי תחת מול ללא בלי הוא היא הם הן אני אתה אתם אנחנו זה זאת זו אלה אלו אשר מה מי מתי \
    איפה היכן איך כיצד כמה למה מדוע האם איזה איזו אילו או גם כי אם אבל אך רק לא אין יש היה היתה הייתה היו יהיה להיות כל כמו יותר מאוד שלו \
    שלה שלהם שלי שלך לו לה להם בו בה בהם אותו אותה אותם";

const HINDI: &str = "का के की को में से पर है हैं था थी थे हो होता होती होते और या एक यह वह ये वे इस उस इन उन ने भी तो ही कि जो जिस जिसे जिसमें \
    क्या कौन कब कहाँ कहां कैसे क्यों कितना कितने कितनी किस किसे किसने किसके नहीं न तक साथ लिए द्वारा बाद पहले अपने अपनी अपना उसके उसकी उनके \
    इसके इसकी हम आप मैं तुम मेरा मेरे हमारे आपके कर करता करते करने किया गया गई गए रहा रहे रही हुआ हुई हुए सकता सकते जैसे कुछ सब बहुत अधिक";

const HUNGARIAN: &str = "a abban ahhoz ahogy ahol aki akik akkor ami amely amelyek amelyet amikor amit arra az azok azon azt azzal be \
    csak de e ebben egy egyes egyik ehhez ekkor el előtt én ennek erre és ez ezek ezen ezt ezzel fel hány hanem ha hogy hogyan hol honnan \
    hova igen ill így is itt kell ki kik kit közül között le lehet lesz meg mely melyek melyik mennyi mert mi miért mik mikor milyen \
    minden mint mit mivel még már most nagyon nem nincs olyan ott ők ő s sem sok szerint számára te tehát ti több után úgy utolsó vagy \
    vagyok van vannak volt voltak volna";

const ITALIAN: &str = "a abbia abbiamo ad agli ai al alla alle allo anche ancora avere aveva avevano c che chi ci ciò coi col come con \
    cosa così cui d da dagli dai dal dalla dalle dallo degli dei del dell della delle dello di dopo dove dov due e è ebbe ed era erano \
    essere fa fino fu fra furono gli ha hai hanno ho i il in io l la le lei li lo loro lui ma me meno mi mia mie miei mio molto ne negli \
    nei nel nell nella nelle nello noi non nostra nostro o ogni oppure per perché perciò più poi prima può qual quale quali quando quanta \
    quante quanti quanto quella quelle quelli quello questa queste questi questo qui quindi se sei si sia siamo sono sopra sotto sta \
    stata state stati stato su sua sue sugli sui sul sulla sulle suo suoi tra tu tua tue tuo tuoi tutti tutto un una uno vi voi vostra \
    vostro";

const NORWEGIAN: &str = "alle at av bare begge ble blei bli blir blitt både da de deg dei deim deira deires dem den denne der dere deres \
    det dette di din disse ditt du dykk eg ei ein eit eller en enn er et ett etter for fordi fra før ha hadde han hans har hennar henne \
    hennes her hun hva hvem hver hvilke hvilken hvilket hvis hvor hvordan hvorfor i ikke ikkje ingen inn ja jeg kan kom korleis kva kvar \
    kven kvifor man mange med meg men mi min mitt mot mye må ned noe noen nå når og også om opp oss over på samme seg selv si sin sitt \
    skal skulle slik som så til um under ut uten var ved vere vi vil ville vår være vært";

const PERSIAN: &str = "و در به از که این آن را با است برای بر تا هم یا یک شد شده می کرد بود کند شود دارد داشت خود ما شما او آنها ایشان من \
    تو چه چرا چگونه کجا کی کدام چند چطور آیا اگر اما ولی نیز هر همه بین پس پیش بعد قبل روی زیر باید نیست هست هستند بودند باشد شدند کرده کردند \
    دیگر بسیار همین همان چون زیرا یعنی های ها";

const POLISH: &str = "a aby ale albo ani bardzo bez bo by być był była było były będzie będą ci co czy czyli dla dlaczego do gdy gdyż \
    gdzie go i ich ile im inne ja jak jaka jaki jakich jakie jako je jednak jego jej jest jestem jeszcze jeśli jeżeli już każdy kiedy kim \
    kto która które którego której który których którym którzy ku lub ma mają mi mnie można może mój my na nad nam nas nasz nich nie nim \
    niż o od ona one oni oraz pan po pod podczas ponieważ poza przed przez przy się są swoje tak także tam te tego tej ten też to tu ty \
    tych tylko tym u w was we więc wszystko wy z za ze że";

const PORTUGUESE: &str = "a à ainda algum alguma ao aos aquela aquele aquilo as às até cada com como contra da das de dela dele deles \
    depois desde do dos durante e é ela elas ele eles em entre era eram essa esse esta está estão estas estava este estes eu foi foram há \
    isso isto já lá lhe lhes mais mas me meu meus minha muito na não nas nem no nos nós nossa nosso num numa o onde os ou para pela pelas \
    pelo pelos pode podem por porque porquê quais qual quando quanta quantas quanto quantos que quê quem se sem ser será seu seus sido só \
    sob sobre sua suas também te tem têm tendo ter teve tinha todo todos tu tua um uma você vocês vos";

const ROMANIAN: &str = "a abia acea această aceasta aceea acei aceia acel acela acele acest acesta aceste acestea acestor acești ai aia al \
    ale alta alte am ar are aș asta astfel asupra atunci au avea avem avut ca care cărei căror cărui când că ce cea cei cel cele cine câte \
    câți cât cu cum da dacă dar de deci decât deși din dintre după ea ei el ele era erau este eu fără face fi fie fiecare fiind fost i iar \
    în înainte între îi își îl la le li lor lui mai mea mei mele meu mi mult ne nici noi nostru nu o ori pe pentru peste poate prin pînă \
    până sa să sau se și sunt sub sus te tot toți toate tu un una unde unei unele unor unui unul va vă voi vor";

const RUSSIAN: &str = "а без более больше будет будут бы был была были было быть в вам вас весь во вот все всё всего всех вы где да даже \
    для до ее её ей ему если есть еще ещё же за здесь и из или им их к как какая какие каким каких какова каковы какого какое какой каком \
    какую когда кого которая которого которое которой котором которую которые который которых кем кому кто куда ли между меня мне много \
    может можно мой мы на над надо нам нас наш не него нее неё ней некоторые нет ни них но ну о об один одна он она они оно от откуда \
    очень по под после почему при про раз с сам своего своей свои своих свой себя сколько со стал так также такой такие там те тем то \
    того тоже той только том тот ту ты у уже хотя чего чей чем через что чтобы чья эта эти этих это этого этой этом этот эту я";

const SPANISH: &str = "a al algo algún alguna algunas alguno algunos ante antes aquel aquella aunque bajo bien cada como cómo con contra \
    cual cuál cuales cuáles cuando cuándo cuanta cuánta cuantas cuántas cuanto cuánto cuantos cuántos cuya cuyo de del desde donde dónde \
    dos durante e el él ella ellas ellos en entre era eran es esa esas ese eso esos esta está estaba están estas este esto estos fue \
    fueron ha había habían habrá hace hacia han has hasta hay haya he la las le les lo los más me mi mí mientras mis mucho muchos muy nada \
    ni no nos nosotros nuestra nuestro o os otra otro para pero poco por porque puede pueden pues que qué quien quién quienes quiénes se \
    sea según ser será si sí sido sin sobre solo son su sus también tan tanto te tenía tiene tienen todo todos tu tú tus un una unas uno \
    unos usted ustedes y ya yo";

const SWEDISH: &str = "alla allt att av bara blev bli blir blivit de dem den denna deras dess dessa det detta dig din dina ditt du där då \
    efter ej eller en er era ett från för före ha hade han hans har henne hennes hon honom hur här i icke in ingen inom inte jag ju kan kom \
    kunde man med mellan men mer mig min mina mitt mot mycket måste ni nog nu när någon något några och också om oss på samma sedan sig \
    sin sina sitt själv ska skall skulle som så sådan till under upp ut utan vad var vara varför varit varje vars vart vem vi vid vilka \
    vilken vilket vill vår våra än är åt över";

const TURKISH: &str = "acaba ama ancak artık aslında az bana bazı belki ben beni benim bile bir biri birkaç birçok biz bize bizim bu buna \
    bunlar bunu bunun burada çok çünkü da daha de değil diye en gibi göre hangi hangisi hem hep hepsi her hiç için ile ilgili ise itibaren \
    kaç kadar karşı kendi kez ki kim kime kimin mı mi mu mü nasıl ne neden nedir nerede nereye niçin niye o olan olarak oldu olduğu olmak \
    olur on ona onlar onu onun önce sen senin siz sonra şey şu tarafından tüm üzere ve veya ya yani yer zaman";

const UKRAINIAN: &str = "а або але без більше був була були було бути в вам вас весь ви від він вона вони воно все всіх де для до є ж за \
    з зі і із або й її їй їм їх його йому як яка яке який якими яких якого якій якому яку які як-от коли кого кому хто куди між мене мені \
    ми можна може на над нам нас наш не нема немає ні них ніж о об один одна по під після при про раз сам свій своєї своїх себе скільки \
    та так також такий там те тим то того той тільки ти у уже це цей ця ці цього чи чого чому через що щоб я";

const VIETNAMESE: &str = "và của là các những được cho trong với không một để này đã khi có thì mà nhưng hoặc cũng đang sẽ rất gì nào tại vì \
    nếu ở đó như theo nhiêu tôi bị bởi đâu mỗi thế";

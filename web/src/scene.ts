/** The sentences that the bundled model was trained on: read one, change a word, write it again. */

export const VOCABULARY = {
  size: ["small", "medium", "large"],
  colour: ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "black", "grey", "white"],
  shape: ["circle", "square", "triangle", "star", "heart"],
  place: ["top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right"],
} as const;

export type Part = "size" | "colour" | "shape" | "place" | "background";
export type Scene = Partial<Record<Part, string>>;

const SYNONYMS: Record<string, string> = {
  little: "small", tiny: "small", big: "large", huge: "large", gray: "grey", violet: "purple",
  center: "centre", middle: "centre",
};

/** The words of `prompt` that the model knows; a part that it does not name is left out. */
export function parse(prompt: string): Scene {
  const words = prompt.toLowerCase().replace(/[a-z]+/g, (word) => SYNONYMS[word] ?? word);
  const colours = VOCABULARY.colour.join("|");
  const ground = new RegExp(`\\b(?:(${colours}) background|(?:on|against) (?:an? )?(${colours})\\b)`).exec(words);
  const rest = ground ? words.replace(ground[0], " ") : words;
  return known({
    size: find(rest, VOCABULARY.size),
    colour: find(rest, VOCABULARY.colour),
    shape: find(rest, VOCABULARY.shape),
    place: find(rest, VOCABULARY.place),
    background: ground?.[1] ?? ground?.[2],
  });
}

/** `scene` as a sentence; without a shape it is a circle, as for the model. */
export function phrase({ size, colour, shape = "circle", place, background }: Scene): string {
  const thing = article([size, colour, shape].filter(Boolean).join(" "));
  const where = place && (place === "centre" ? "in the centre" : `at the ${place}`);
  const ground = background && `on ${article(`${background} background`)}`;
  return [thing, where, ground].filter(Boolean).join(" ");
}

/** Any scene, every word equally likely; the background never has the shape's colour. */
export function anyScene(random: () => number): Scene {
  const pick = (words: readonly string[]) => words[Math.floor(random() * words.length)]!;
  const colour = pick(VOCABULARY.colour);
  return {
    size: pick(VOCABULARY.size),
    colour,
    shape: pick(VOCABULARY.shape),
    place: pick(VOCABULARY.place),
    background: pick(VOCABULARY.colour.filter((word) => word !== colour)),
  };
}

/** The first of `words`, longest first ("top left" before "top"), that stands in `text`. */
function find(text: string, words: readonly string[]): string | undefined {
  const longestFirst = [...words].sort((a, b) => b.length - a.length);
  return new RegExp(`\\b(${longestFirst.join("|")})\\b`).exec(text)?.[1];
}

function article(words: string): string {
  return `${/^[aeiou]/.test(words) ? "an" : "a"} ${words}`;
}

function known(parts: Record<Part, string | undefined>): Scene {
  return Object.fromEntries(Object.entries(parts).filter(([, word]) => word !== undefined));
}

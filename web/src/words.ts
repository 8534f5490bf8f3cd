import { parse, type Part, phrase, VOCABULARY } from "./scene";

/** What the colour words look like. */
const COLOURS: Record<string, string> = {
  red: "#d62828", orange: "#f48c1e", yellow: "#fada32", green: "#28a046", cyan: "#46cde1", blue: "#2850d2",
  purple: "#8232aa", pink: "#f691c3", black: "#181818", grey: "#808080", white: "#f6f6f6",
};

const PARTS: { part: Part; title: string; words: readonly string[]; look: "text" | "shape" | "colour" | "place" }[] = [
  { part: "shape", title: "Shape", words: VOCABULARY.shape, look: "shape" },
  { part: "size", title: "Size", words: VOCABULARY.size, look: "text" },
  { part: "colour", title: "Colour", words: VOCABULARY.colour, look: "colour" },
  { part: "background", title: "Background", words: VOCABULARY.colour, look: "colour" },
  { part: "place", title: "Place", words: VOCABULARY.place, look: "place" },
];

/** The words that the bundled model knows, as buttons that change that one word of the prompt. */
export class Words {
  readonly #prompt: HTMLTextAreaElement;
  readonly #onChange: () => void;
  readonly #buttons: HTMLButtonElement[] = [];

  constructor(panel: HTMLElement, prompt: HTMLTextAreaElement, onChange: () => void) {
    this.#prompt = prompt;
    this.#onChange = onChange;
    panel.append(...PARTS.map((part) => this.#row(part)));
    this.reflect();
  }

  /** Press the buttons of the words that stand in the prompt. */
  reflect(): void {
    const scene = parse(this.#prompt.value);
    for (const button of this.#buttons) {
      const isSaid = scene[button.dataset.part as Part] === button.value;
      button.setAttribute("aria-pressed", String(isSaid));
    }
  }

  #row({ part, title, words, look }: (typeof PARTS)[number]): HTMLElement {
    const row = document.createElement("div");
    row.className = `words ${look}`;
    row.role = "group";
    row.ariaLabel = title;
    const name = document.createElement("span");
    name.textContent = title;
    const buttons = document.createElement("div");
    buttons.append(...words.map((word) => this.#button(part, word, look)));
    row.append(name, buttons);
    return row;
  }

  #button(part: Part, word: string, look: string): HTMLButtonElement {
    const button = document.createElement("button");
    button.type = "button";
    button.value = word;
    button.dataset.part = part;
    button.title = button.ariaLabel = word;
    if (look === "text") button.textContent = word;
    if (look === "shape") button.append(Object.assign(document.createElement("i"), { className: word }));
    if (look === "colour") button.style.setProperty("--swatch", COLOURS[word]!);
    button.addEventListener("click", () => this.#say(part, word));
    this.#buttons.push(button);
    return button;
  }

  /** Put `word` into the prompt; pressed again, it is left out. */
  #say(part: Part, word: string): void {
    const scene = parse(this.#prompt.value);
    const { [part]: said, ...others } = scene;
    this.#prompt.value = phrase(said === word && part !== "shape" ? others : { ...scene, [part]: word });
    this.#onChange();
  }
}

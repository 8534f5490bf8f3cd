import type { ConnectionState } from "./connectionState";
import { element } from "./element";

const STATE_WORDS: Record<ConnectionState["name"], string> = {
  idle: "Idle",
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  waiting: "Waiting",
  refused: "Refused",
};

/** Everything the page says: connection, figures, problems, and what a screen reader hears. */
export class Readout {
  readonly #pill = element("state", HTMLElement);
  readonly #notice = element("notice", HTMLElement);
  readonly #latency = element("latency", HTMLElement);
  readonly #engine = element("engine", HTMLElement);
  readonly #dropped = element("dropped", HTMLElement);
  readonly #announcement = element("announcement", HTMLElement);
  readonly #onConnect: () => void;
  #droppedInputs = 0;

  /** @param onConnect Asked for by who was refused. */
  constructor(onConnect: () => void) {
    this.#onConnect = onConnect;
  }

  /** The connection is in `state`; the reason of a bad one stands below the prompt. */
  connection(state: ConnectionState): void {
    if (this.#pill.dataset.state !== state.name) {
      this.#pill.dataset.state = state.name;
      element("state-words", HTMLElement).textContent = STATE_WORDS[state.name];
    }
    this.problem("reason" in state ? state.reason : "");
    if (state.name === "refused") {
      this.#notice.append(" ", state.wayOn === "log in" ? logInLink() : connectButton(this.#onConnect));
    }
  }

  /** Something about the last input that people can mend; an empty text takes it back. */
  problem(words: string): void {
    if (this.#notice.textContent !== words) this.#notice.textContent = words;
  }

  /** Milliseconds from input to picture and in the engine, and how many inputs newer ones replaced. */
  figures(totalMs: number, engineMs: number, droppedInputs: number): void {
    this.#droppedInputs += droppedInputs;
    this.#latency.textContent = totalMs.toFixed(0);
    this.#engine.textContent = engineMs.toFixed(0);
    this.#dropped.textContent = String(this.#droppedInputs);
  }

  /** Tell a screen reader. */
  announce(words: string): void {
    this.#announcement.textContent = words;
  }
}

function logInLink(): HTMLAnchorElement {
  return Object.assign(document.createElement("a"), { href: "/login", textContent: "Log in again" });
}

function connectButton(onClick: () => void): HTMLButtonElement {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Connect again" });
  button.addEventListener("click", onClick);
  return button;
}

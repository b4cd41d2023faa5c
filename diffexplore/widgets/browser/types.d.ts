// The types that the modules here name in their comments. For `tsc` and
// for editors; no browser ever asks for this file.

type Session = import("./session.js").Session;
type View = import("./viewer.js").View;

/**
 * A picture as it came: `asked` once it is being decoded, `bitmap` once it is, and until then `before`, the one it covers;
 * `light`: its luminance; `about`: the settings that made it.
 */
interface Shot {
  bytes: Uint8Array;
  format: string;
  exact: boolean;
  bitmap: ImageBitmap | null;
  asked: boolean;
  before: Shot | null;
  light: Float32Array | null;
  about: Film["about"] | null;
}

/** A picture ready to be drawn. */
type Picture = ImageBitmap | HTMLCanvasElement;

/** A picture, why there is none, or not there yet. */
type Slot = Shot | string | null;

/** The numbers of one evaluation, see film.py. */
interface Step {
  timestep: number | null;
  sigma: number | null;
  seconds: number | null;
  change?: number | null;
  spectrum?: (number | null)[];
  adherence?: number | null;
  attention?: Looks | null;
  /** A number that was declared in Python. */
  [name: string]: any;
}

/** Where the words of the prompt look at one evaluation, as looks/overlay.py packs it. */
interface Looks {
  size: [height: number, width: number];
  shares: number[];
  maps: string;
}

/** What an entry of a row is, as in film.py. */
interface WireColumn {
  /** Of where words look: which words. */
  words?: string[];
  name: string;
  label: string;
  unit: string;
  log: boolean;
  /** What it belongs to with others, whose panel shows it; it is no fact of the step then. */
  group?: string;
}

/** A number that the track may show. */
interface Track {
  name: string;
  word: string;
  log: boolean;
  judged?: boolean;
}

/** A number of the steps for a reader: `word` beside its fact, `head` over its column; `judged`: only where somebody can tell. */
interface Column {
  name: string;
  word?: string;
  head?: string;
  title: string;
  judged?: boolean;
  group?: string;
  text(step: Step | undefined): string;
  share?(step: Step | undefined): number;
}

/** A place on the timeline as somebody left it; `end`: the last, however many there come to be. */
interface Held {
  place: number;
  places: number;
  sigma: number | null;
  end: boolean;
}

/** What earlier runs left on show; `at`: the evaluation that was looked at. */
interface Ghost {
  count: number;
  at: number;
  frames: Record<string, Slot[]>;
  steps: (Step | undefined)[];
  final: Shot | null;
}

interface Film {
  label: string;
  status: string;
  expected: number;
  seconds: number;
  size: [number, number];
  about: Record<string, string | number>;
  tokens?: [text: string, matter: string, ids?: string][];
  /** What changed on the way: an evaluation, what, and the share of noise that it was asked for at. */
  flags?: [evaluation: number, text: string, mark: number][];
  /** Of how many words of the prompt its judge can speak. */
  judged?: string;
  columns?: WireColumn[];
  steps: Step[];
  frames: Record<string, Slot[]>;
  final: Shot | null;
  previous: Ghost | null;
  /** Of a video, which of its frames are there, see film.py. */
  reel?: { frames: number; middle: number; shown: number[]; first: number[]; fps: number; note: string } | null;
  /** Of a sound, how long it is and where its time axis lies on a picture. */
  sound?: { seconds: number; from: number; to: number; note: string } | null;
  /** Of all that a video or a sound is. */
  digest?: string;
}

/** The part of every picture on show: how much enlarged, and its corner as a share of the whole. */
interface Zoom {
  scale: number;
  left: number;
  top: number;
}

/** A column of the page: film `k`, or with -1 the place where one is going to be. */
interface Seat {
  label: string;
  k: number;
  steps: number;
  shape: number;
}

/** A tab: `many`: only for several films, or with false only for one; `there`: whether there is something to show. */
interface Tab {
  word: string;
  many?: boolean;
  there?(): boolean;
}

/** A part of the page. */
interface Panel {
  /** Its nodes, by the place they go to; "tab" is that of its own tab. */
  nodes: Record<string, Node[]>;
  tab?: Tab;
  /** Draw pictures; the only one that may ask for sizes. Called first. */
  paint?(): void;
  draw?(): void;
}

/** A message of kind "piece", see viewer.py. */
interface Piece {
  run: number;
  piece: number;
  films: (Omit<Film, "steps" | "frames" | "final" | "previous"> & { first: number; steps: any[][] })[];
  shots: [film: number, kind: string, evaluation: number, format: string, exact: boolean][];
  blanks: [film: number, kind: string, evaluation: number, why: string][];
  captions?: Record<string, string>;
}

/** What anywidget hands over. */
interface Model {
  get(name: string): any;
  send(content: any): void;
  on(name: string, f: (...args: any[]) => void): void;
  off(name: string, f: (...args: any[]) => void): void;
}

/** A widget as a notebook keeps it. */
interface SavedWidget {
  model_name: string;
  state: Record<string, unknown>;
}

/** The sweep that is being written: text as typed, undo and redo, and the sweep it stands for or what is wrong with it. */
import { createStore } from 'zustand/vanilla';
import { checkAxisValue } from '../../src-main/contract/axes.ts';
import { InputError } from '../../src-main/contract/input-error.ts';
import { type AxisValue, type Phase, type Sweep, unsaid } from '../../src-main/contract/sweep.ts';
import { parseValues } from '../../src-main/contract/values.ts';

export interface Draft {
  readonly name: string;
  readonly levels: readonly string[];
  readonly phases: readonly Phase[];
  /** Axis → values as typed. An empty text leaves the axis to its default. */
  readonly axes: Readonly<Record<string, string>>;
  /** Axes that the user added to the form, in the order added. */
  readonly extraAxes: readonly string[];
  /** Empty: the default of the engine. */
  readonly minSeconds: string;
  readonly maxSeconds: string;
  /** What the form has no field for: it came with a sweep that was opened, and stays until it is removed. */
  readonly kept: Pick<Sweep, 'zip' | 'also' | 'measuring'>;
}

/** Small enough that the first result is there within seconds. */
export const firstDraft: Draft = {
  name: 'quick look',
  levels: ['baseline', 'near-lossless', 'near-lossless-input', 'four-bit', 'mixed-latent', 'balanced'],
  phases: ['prefill', 'decode'],
  axes: { hiddenDim: '512', heads: '8', headDim: '', referenceKvHeads: '', seqLen: '512', batch: '1' },
  extraAxes: [],
  minSeconds: '0.2',
  maxSeconds: '0.6',
  kept: {},
};

/** Always in the form; other axes are added to it. */
export const standardAxes: readonly string[] = ['hiddenDim', 'heads', 'headDim', 'referenceKvHeads', 'seqLen', 'batch'];

/** The form of a sweep: {@link sweepOf} of it stands for the same points. */
export function draftOf({ name, axes, zip, also, measuring = {} }: Sweep): Draft {
  const { level = [unsaid.level], phase = [unsaid.phase], ...others } = axes;
  const { minSeconds, maxSeconds, ...rest } = measuring;
  const texts = Object.entries(others).map(([axis, values]) => [axis, values.join(',')]);
  return {
    name,
    levels: level.map(String),
    phases: phase as Phase[],
    axes: { ...Object.fromEntries(standardAxes.map((axis) => [axis, ''])), ...Object.fromEntries(texts) },
    extraAxes: Object.keys(others).filter((axis) => !standardAxes.includes(axis)),
    minSeconds: minSeconds === undefined ? '' : String(minSeconds),
    maxSeconds: maxSeconds === undefined ? '' : String(maxSeconds),
    kept: {
      ...(zip && { zip }),
      ...(also && { also }),
      ...(Object.keys(rest).length > 0 && { measuring: rest }),
    },
  };
}

export type DraftErrors = Readonly<Record<string, string>>;

export interface DraftResult {
  readonly sweep?: Sweep;
  /** Field → what is wrong with it. Never both. */
  readonly errors: DraftErrors;
}

/** Axes whose neighbours should be measured together stand first, levels last: see the engine's run. */
const axisOrder = ['hiddenDim', 'heads', 'headDim', 'referenceKvHeads', 'seqLen', 'batch', 'phase', 'level'];

export function sweepOf(draft: Draft): DraftResult {
  const errors: Record<string, string> = {};
  const read = <Value>(field: string, parse: () => Value): Value | undefined => {
    try {
      return parse();
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      errors[field] = error.message;
      return undefined;
    }
  };
  const axes: Record<string, AxisValue[]> = {};
  for (const [axis, text] of Object.entries(draft.axes)) {
    const values = text.trim() === '' ? undefined : read(axis, () => valuesOf(axis, text));
    if (values) axes[axis] = values;
  }
  if (draft.name.trim() === '') errors.name = 'give the sweep a name: it becomes the name of its session';
  if (draft.levels.length === 0) errors.level = 'choose at least one level';
  if (draft.phases.length === 0) errors.phase = 'choose at least one phase';
  const minSeconds = read('minSeconds', () => secondsOf(draft.minSeconds, 'minSeconds', 0));
  const maxSeconds = read('maxSeconds', () => secondsOf(draft.maxSeconds, 'maxSeconds', minSeconds ?? 0));
  if (Object.keys(errors).length > 0) return { errors };

  // Values of a zip group stand beside their neighbours: their order is not ours to change.
  const phase = draft.kept.zip?.flat().includes('phase') ? [...draft.phases] : firstDecode(draft.phases);
  const all: Record<string, AxisValue[]> = { ...axes, phase, level: [...draft.levels] };
  const rank = (axis: string): number => {
    const known = axisOrder.indexOf(axis);
    return known === -1 ? axisOrder.length - 2.5 : known; // added axes: before phase and level
  };
  const ordered = Object.entries(all).sort(([a], [b]) => rank(a) - rank(b));
  const measuring = {
    ...draft.kept.measuring,
    ...(minSeconds === undefined ? {} : { minSeconds }),
    ...(maxSeconds === undefined ? {} : { maxSeconds }),
  };
  const { zip, also } = draft.kept;
  const sweep = {
    name: draft.name.trim(),
    axes: Object.fromEntries(ordered),
    ...(zip && { zip }),
    ...(also && { also }),
    ...(Object.keys(measuring).length > 0 && { measuring }),
  };
  return { sweep, errors };
}

/** Decode is where a cache matters, what the charts show first, and the quickest to measure. */
const firstDecode = (chosen: readonly Phase[]): Phase[] =>
  [...chosen].sort((a, b) => Number(b === 'decode') - Number(a === 'decode'));

function valuesOf(axis: string, text: string): AxisValue[] {
  const values = parseValues(text, axis);
  for (const value of values) checkAxisValue(axis, value);
  return values;
}

function secondsOf(text: string, field: string, least: number): number | undefined {
  const seconds = Number(text);
  if (text.trim() === '') return undefined;
  if (seconds >= least && seconds <= 3600) return seconds;
  throw new InputError(`expected seconds from ${least} to 3600 for ${field} but received ${text.trim()}`);
}

interface DraftStore {
  readonly draft: Draft;
  readonly past: readonly Draft[];
  readonly future: readonly Draft[];
  /** Field of the last edit: letters typed in a row into one field are one step back. */
  readonly editing: string | undefined;
}

const mostSteps = 200;

export function createDraftStore(draft: Draft = firstDraft) {
  const store = createStore<DraftStore>(() => ({ draft, past: [], future: [], editing: undefined }));
  const { setState } = store;
  return {
    ...store,
    /** @param field typed into; absent = a step of its own */
    edit: (change: Partial<Draft>, field?: string) =>
      setState(({ draft, past, editing }) => {
        const continues = field !== undefined && field === editing;
        return {
          draft: { ...draft, ...change },
          past: continues ? past : [...past, draft].slice(-mostSteps),
          future: [],
          editing: field,
        };
      }),
    /** Nothing came before it: no step back leads past it. */
    begin: (draft: Draft) => setState({ draft, past: [], future: [], editing: undefined }),
    undo: () =>
      setState(({ draft, past, future }) => {
        const before = past.at(-1);
        return before
          ? { draft: before, past: past.slice(0, -1), future: [draft, ...future], editing: undefined }
          : { editing: undefined };
      }),
    redo: () =>
      setState(({ draft, past, future: [next, ...rest] }) =>
        next ? { draft: next, past: [...past, draft], future: rest, editing: undefined } : { editing: undefined },
      ),
  };
}

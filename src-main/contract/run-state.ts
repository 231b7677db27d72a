/**
 * What a window knows about the current sweep, as a pure reduce over one numbered stream of events. The host applies the
 * same function to the same events, so its snapshot at sequence n is exactly what a window has that saw events 1 to n.
 */
import type { RunEnd, RunEvent } from './api.ts';
import type { Point } from './metrics.ts';
import type { Environment } from './session.ts';
import type { Sweep } from './sweep.ts';

export interface RunSession {
  readonly id: string;
  readonly name: string;
  /** Where it is saved while it runs. */
  readonly file: string;
}

export type RunVerb = 'pause' | 'continue' | 'stop' | 'cancel';

type WithoutSequence<Event> = Event extends unknown ? Omit<Event, 'sequence'> : never;

export type HubEventBody =
  /** A new sweep took the place of the one before; all that was known is void. */
  | { readonly type: 'opened'; readonly session: RunSession; readonly sweep: Sweep }
  /** A window asked for it; the engine follows when the step at hand is over. */
  | { readonly type: 'asked'; readonly verb: RunVerb }
  /** Points come without their raw samples, which are asked for one point at a time. */
  | WithoutSequence<RunEvent>
  /** The current session was renamed. */
  | { readonly type: 'renamed'; readonly name: string }
  /** Something in the library of sessions is not what it was. */
  | { readonly type: 'library' }
  /** What the user should know about where the sweep runs, and no row says. */
  | { readonly type: 'notice'; readonly text: string }
  /** Another session took the place of the one before. Its number leaves a gap, so whoever hears it asks for a snapshot. */
  | { readonly type: 'replaced' }
  /** The sweep could not start, or ended by a fault that is no point's. */
  | { readonly type: 'broken'; readonly reason: string };

/** `sequence` grows by one over the life of the host, across sweeps. */
export type HubEvent = HubEventBody & { readonly sequence: number };

export type RunStatus = 'idle' | 'starting' | 'running' | 'paused' | 'ended';

export interface RunState {
  readonly sequence: number;
  /** Counts changes of the library of sessions. */
  readonly libraryChanges: number;
  readonly status: RunStatus;
  readonly session?: RunSession | undefined;
  readonly sweep?: Sweep | undefined;
  readonly environment?: Environment | undefined;
  /** Asked for and not yet reached. */
  readonly asked?: Exclude<RunVerb, 'continue'> | undefined;
  readonly total: number;
  readonly done: number;
  readonly etaSeconds?: number | undefined;
  readonly step?: { readonly pointId: string; readonly step: 'preparing' | 'sampling'; readonly samples: number };
  readonly points: readonly Point[];
  /** The last one of this sweep. */
  readonly notice?: string | undefined;
  /** Why it paused by itself. */
  readonly pauseReason?: string | undefined;
  readonly how?: RunEnd | undefined;
  readonly failure?: string | undefined;
}

export const noRun: RunState = {
  sequence: 0,
  libraryChanges: 0,
  status: 'idle',
  total: 0,
  done: 0,
  points: [],
};

export const isActive = ({ status }: RunState): boolean =>
  status === 'starting' || status === 'running' || status === 'paused';

/** Samples may be taken this moment: whatever else the machine does is noise in them. */
export const isSampling = ({ status }: RunState): boolean => status === 'starting' || status === 'running';

/** Events in order, without a gap after `state.sequence`: see {@link followsOn}. */
export function reduceRun(state: RunState, events: readonly HubEvent[]): RunState {
  let next: RunState = state;
  let fresh: Point[] = [];
  for (const event of events) {
    if (event.type === 'opened') fresh = [];
    if (event.type === 'point') fresh.push(event.point);
    next = { ...step(next, event), sequence: event.sequence };
  }
  // One copy a batch, not one an event: ten thousand points arrive in as many events.
  return fresh.length > 0 ? { ...next, points: [...next.points, ...fresh] } : next;
}

/** Whether a batch can be applied to what is known; if not, a snapshot is due. */
export const followsOn = (state: RunState, events: readonly HubEvent[]): boolean =>
  events.every((event, i) => event.sequence === state.sequence + 1 + i);

function step(state: RunState, event: HubEvent): RunState {
  switch (event.type) {
    case 'opened':
      return {
        ...noRun,
        libraryChanges: state.libraryChanges,
        status: 'starting',
        session: event.session,
        sweep: event.sweep,
      };
    case 'started':
      return {
        ...state,
        status: 'running',
        libraryChanges: state.libraryChanges + 1, // its file is there now
        environment: event.environment,
        total: event.total,
        done: event.done,
      };
    case 'asked':
      return { ...state, asked: event.verb === 'continue' ? undefined : event.verb };
    case 'progress':
      return { ...state, step: { pointId: event.pointId, step: event.step, samples: event.samples } };
    case 'point':
      return { ...state, done: event.done, total: event.total, etaSeconds: event.etaSeconds };
    case 'paused':
      return { ...state, status: 'paused', asked: undefined, pauseReason: event.reason };
    case 'continued':
      return { ...state, status: 'running', pauseReason: undefined };
    case 'ended':
      return { ...state, status: 'ended', asked: undefined, how: event.how, etaSeconds: undefined };
    case 'renamed':
      return state.session ? { ...state, session: { ...state.session, name: event.name } } : state;
    case 'library':
      return { ...state, libraryChanges: state.libraryChanges + 1 };
    case 'notice':
      return { ...state, notice: event.text };
    case 'replaced':
      return state;
    case 'broken':
      return { ...state, status: 'ended', asked: undefined, failure: event.reason, etaSeconds: undefined };
  }
}

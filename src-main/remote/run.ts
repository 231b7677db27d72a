/**
 * A sweep run by an agent: the same events and the same rows as a local run. The agent measures on while the connection is
 * lost; found again, the rows are taken up where they were left, and when all are here the agent may forget them.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunEnd, RunEvent, RunEventBody, SweepRun } from '../contract/api.ts';
import { InputError } from '../contract/input-error.ts';
import type { Point } from '../contract/metrics.ts';
import type { Sweep } from '../contract/sweep.ts';
import type { RunSetting } from '../engine/ports.ts';
import { type Line, LineLost } from './line.ts';
import { type Followed, type RemoteVerb, unknownRun } from './protocol.ts';

/** `environment`: of the agent's machine. Only when every row is recorded the agent may forget them. */
export interface RemotePlan extends RunSetting {
  readonly host: string;
  /** The connection now. */
  readonly line: Line;
  /** Another one, when it is lost. @throws LineLost */
  readonly reconnect: () => Promise<Line>;
  readonly onNotice: (line: string) => void;
  readonly sweep: Sweep;
  readonly plan: readonly { readonly id: string }[];
  /** Id of the session: whoever resumes it finds its rows. */
  readonly run: string;
}

const firstRetryMilliseconds = 100;
const longestRetryMilliseconds = 10_000;

export function startRemoteRun(options: RemotePlan): SweepRun {
  const run = new RemoteRun(options);
  return {
    pause: () => run.steer('pause'),
    continue: () => run.steer('continue'),
    stop: () => run.steer('stop'),
    cancel: (how = 'cancelled') => (how === 'interrupted' ? run.leave() : run.steer('cancel')),
    finished: run.start(),
  };
}

class RemoteRun {
  private readonly options: RemotePlan;
  private readonly rows: Map<string, Point>;
  private readonly open: Set<string>;
  private readonly doneBefore: number;
  private readonly startedAt: number;
  private readonly leaving = new AbortController();
  private line: Line | undefined;
  private wanted: RemoteVerb | undefined;
  private sequence = 0;
  private next = 0;
  private seen = -1;
  private toldPaused = false;

  constructor(options: RemotePlan) {
    this.options = options;
    const { plan, done, line, clock } = options;
    this.rows = new Map(plan.flatMap(({ id }) => (done?.has(id) ? [[id, done.get(id) as Point]] : [])));
    this.open = new Set(plan.filter(({ id }) => !this.rows.has(id)).map(({ id }) => id));
    this.doneBefore = this.rows.size;
    this.startedAt = clock.now();
    this.line = line;
  }

  steer(verb: RemoteVerb): void {
    this.wanted = verb;
    // Where the line is lost it is said again over the next.
    void this.sendWanted().catch(() => undefined);
    // Who cancels does not wait for a server that is out of reach.
    if (verb === 'cancel' && !this.line) this.leave();
  }

  /** The agent goes on without us. */
  leave(): void {
    this.leaving.abort();
    this.line?.close();
  }

  async start(): Promise<{ points: Point[]; how: RunEnd }> {
    const { plan, environment, run, sweep, host, onNotice } = this.options;
    this.tell({ type: 'started', total: plan.length, done: this.rows.size, environment });
    let how: RunEnd | undefined;
    let begun = false;
    while (how === undefined && !this.leaving.signal.aborted) {
      try {
        const line = this.line ?? (await this.findAgain());
        if (!line) break;
        if (!begun) await line.ask('start', { run, sweep, except: [...this.rows.keys()] });
        begun = true;
        const ended = await this.follow(line);
        if (ended === undefined)
          begun = false; // the agent was restarted: what is left is started again
        else await line.ask('acknowledge', { run });
        how = ended;
      } catch (error) {
        if (!(error instanceof LineLost)) throw error;
        this.line = undefined;
      }
    }
    this.line?.close();
    if (how === undefined) {
      how = this.wanted === 'cancel' ? 'cancelled' : 'interrupted';
      onNotice(`${host} goes on with the sweep; --resume collects it`);
    }
    if (this.open.size === 0) how = 'done';
    this.tell({ type: 'ended', how });
    return { points: plan.flatMap(({ id }) => this.rows.get(id) ?? []), how };
  }

  /** To the end of the run. @returns undefined where nobody measures what is left of it */
  private async follow(line: Line): Promise<RunEnd | undefined> {
    await this.sendWanted();
    for (;;) {
      const { run } = this.options;
      const answer = await line.ask('follow', { run, from: this.next, seen: this.seen }).catch((error: unknown) => {
        if (error instanceof InputError && error.message === unknownRun) return undefined;
        throw error;
      });
      if (!answer) {
        this.next = 0; // it was acknowledged, or lost with the agent's disk
        return this.open.size === 0 ? 'done' : this.ending();
      }
      for (const row of answer.rows) await this.take(row);
      this.next += answer.rows.length;
      this.seen = answer.changes;
      this.tellState(answer);
      if (this.next < answer.rowsSoFar) continue;
      if (answer.status === 'idle') return this.ending();
      if (answer.status !== 'ended') continue;
      if (answer.failure !== undefined) throw new InputError(`${this.options.host}: ${answer.failure}`);
      return answer.how ?? 'done';
    }
  }

  /** What was asked for counts as reached where nobody is at work. */
  private ending(): RunEnd | undefined {
    return this.wanted === 'stop' ? 'stopped' : this.wanted === 'cancel' ? 'cancelled' : undefined;
  }

  private async sendWanted(): Promise<void> {
    const { run } = this.options;
    const { wanted: verb } = this;
    if (verb === undefined) return;
    await this.line?.ask('steer', { run, verb }).catch((error: unknown) => {
      if (!(error instanceof InputError)) throw error; // there is nothing to steer: `follow` says why
    });
  }

  /** Tries until it succeeds or the user leaves; a first success at once is not worth a word. */
  private async findAgain(): Promise<Line | undefined> {
    const { reconnect, onNotice, host } = this.options;
    let told = false;
    for (let wait = firstRetryMilliseconds; !this.leaving.signal.aborted; wait *= 2) {
      try {
        this.line = await reconnect();
        if (told) onNotice(`${host} is back`);
        return this.line;
      } catch (error) {
        if (!(error instanceof LineLost)) throw error;
        if (!told) onNotice(`the connection to ${host} is lost (${error.message}); trying again`);
        told = true;
      }
      const pause = Math.min(wait, longestRetryMilliseconds);
      await sleep(pause, undefined, { signal: this.leaving.signal }).catch(() => undefined);
    }
    return undefined;
  }

  /** A row that is here already came over a line that broke before we could say so. */
  private async take(point: Point): Promise<void> {
    if (!this.open.has(point.id)) return;
    const { record, plan, clock } = this.options;
    await record(point);
    this.open.delete(point.id);
    this.rows.set(point.id, point);
    const [done, total] = [this.rows.size, plan.length];
    const etaSeconds = ((clock.now() - this.startedAt) * (total - done)) / (done - this.doneBefore);
    this.tell({ type: 'point', point, done, total, etaSeconds });
  }

  private tellState({ status, step, pauseReason }: Followed): void {
    const isPaused = status === 'paused';
    if (isPaused !== this.toldPaused && status !== 'ended') {
      const reason = pauseReason === undefined ? {} : { reason: pauseReason };
      this.tell(isPaused ? { type: 'paused', ...reason } : { type: 'continued' });
      this.toldPaused = isPaused;
    }
    if (step && status === 'running' && this.open.has(step.pointId)) this.tell({ type: 'progress', ...step });
  }

  private tell(body: RunEventBody): void {
    this.sequence += 1;
    this.options.onEvent?.({ ...body, sequence: this.sequence } as RunEvent);
  }
}

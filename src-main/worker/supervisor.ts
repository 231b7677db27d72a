/**
 * Keeps one worker process at work. Whatever the worker does – crash, hang, lie, fall silent – a call ends with an answer that
 * fits its schema or with a {@link BackendFailure}; after anything suspicious the process is killed and the next call starts
 * a new one, of the next generation.
 */

import type { EvaluationText, LevelOnModel, ModelFiles } from '../contract/model.ts';
import type { PointConfig } from '../contract/sweep.ts';
import {
  BackendFailure,
  type BackendInfo,
  type FailureKind,
  type MeasuringBackend,
  type Prepared,
  type Reached,
  type ReachLimits,
} from '../engine/ports.ts';
import type {
  AddonErrorCode,
  AttendRequest,
  AttendResult,
  BenchCase,
  BenchOptions,
  SpeculateRequest,
  Tensor,
} from './addon-types.ts';
import {
  type Answer,
  type Arguments,
  answerSchemas,
  type Call,
  type Reply,
  type Request,
  replySchema,
} from './protocol.ts';
import type { SpawnWorker, WorkerProcess } from './spawn.ts';

/** Something the worker holds; void in any other generation. */
export type Layer = Pick<Prepared, 'handle' | 'generation'>;

export interface SupervisorOptions {
  readonly spawn: SpawnWorker;
  /** Time a cancelled call has to give way before its process is killed. */
  readonly graceSeconds?: number;
  /** Time a killed process has to be gone before its device counts as lost. */
  readonly endSeconds?: number;
}

/** For calls that do bounded work. */
const ownDeadlineSeconds = 60;
/** Nothing may keep the program from ending, not even a process stuck in the kernel. */
const closeSeconds = 2;

interface Pending {
  readonly call: Call;
  readonly deadlineSeconds: number;
  readonly resolve: (value: never) => void;
  readonly reject: (failure: BackendFailure) => void;
  timer: NodeJS.Timeout;
  /** It was asked to give way, for this reason. */
  ending?: 'timeout' | 'cancelled';
}

interface Worker {
  readonly generation: number;
  readonly process: WorkerProcess;
  readonly pending: Map<number, Pending>;
  readonly ended: Promise<void>;
  /** When it was told to end, milliseconds of the monotonic clock. */
  retiredAt?: number;
}

const addonCodes: Readonly<Record<AddonErrorCode, FailureKind>> = {
  cancelled: 'cancelled',
  refused: 'refused',
  'out-of-memory': 'out-of-memory',
  failed: 'failed',
};

export class Supervisor implements MeasuringBackend {
  private readonly spawn: SpawnWorker;
  private readonly graceSeconds: number;
  private readonly endSeconds: number;
  private worker: Worker | undefined;
  private readonly alive = new Set<Worker>();
  private generations = 0;
  private lastId = 0;
  private lastEnd = 'the worker was replaced';
  private closed = false;

  constructor({ spawn, graceSeconds = 5, endSeconds = 5 }: SupervisorOptions) {
    this.spawn = spawn;
    this.graceSeconds = graceSeconds;
    this.endSeconds = endSeconds;
  }

  async info(): Promise<BackendInfo> {
    return { name: 'cpu', ...(await this.ask('info', [])) };
  }

  ceilings(): Promise<Answer<'ceilings'>> {
    return this.ask('ceilings', []);
  }

  async prepare(config: PointConfig, deadlineSeconds: number): Promise<Prepared> {
    const prepared = this.call('prepare', [config], deadlineSeconds);
    const generation = this.generations;
    return { ...(await prepared), generation };
  }

  async prepareModel(
    config: PointConfig,
    model: ModelFiles,
    text: EvaluationText,
    deadlineSeconds: number,
  ): Promise<Prepared> {
    const prepared = this.call('prepareModel', [config, model, text], deadlineSeconds);
    const generation = this.generations;
    return { ...(await prepared), generation };
  }

  async sample(
    prepared: Prepared,
    seconds: number,
    maxSamples: number,
    deadlineSeconds: number,
  ): Promise<readonly number[]> {
    if (prepared.generation !== this.worker?.generation) throw new BackendFailure('crashed', this.lastEnd, true);
    return [...(await this.call('sample', [prepared.handle, seconds, maxSamples], deadlineSeconds))];
  }

  cuda(): Promise<Answer<'cuda'>> {
    return this.ask('cuda', []);
  }

  cudaVitals(): Promise<Answer<'cudaVitals'>> {
    return this.ask('cudaVitals', []);
  }

  cudaCeilings(device: number): Promise<Answer<'cudaCeilings'>> {
    return this.ask('cudaCeilings', [device]);
  }

  async conditions({ handle, generation }: Layer): Promise<Answer<'conditions'>> {
    if (generation !== this.worker?.generation) throw new BackendFailure('crashed', this.lastEnd, true);
    return await this.call('conditions', [handle], ownDeadlineSeconds);
  }

  /** A handle of an earlier generation died with its process. */
  async release({ handle, generation }: Layer): Promise<void> {
    if (generation === this.worker?.generation) await this.call('release', [handle], ownDeadlineSeconds);
  }

  attend(request: AttendRequest, deadlineSeconds: number): Promise<AttendResult> {
    return this.call('attend', [request], deadlineSeconds);
  }

  bench(options: BenchOptions, deadlineSeconds: number): Promise<readonly BenchCase[]> {
    return this.call('bench', [options], deadlineSeconds);
  }

  logits(model: ModelFiles, config: PointConfig, tokens: Tensor<Int32Array>, prompt: number, deadlineSeconds: number) {
    return this.call('logits', [model, config, tokens, prompt], deadlineSeconds);
  }

  speculate(model: ModelFiles, text: EvaluationText, request: SpeculateRequest, deadlineSeconds: number) {
    return this.call('speculate', [model, text, request], deadlineSeconds);
  }

  reach(kinds: LevelOnModel, limits: ReachLimits, deadlineSeconds: number): Promise<Reached> {
    return this.call('reach', [kinds, limits], deadlineSeconds);
  }

  async createLayer(config: PointConfig, deadlineSeconds: number): Promise<Layer> {
    const handle = this.call('createLayer', [config], deadlineSeconds);
    const generation = this.generations;
    return { handle: await handle, generation };
  }

  async forward(layer: Layer, x: Tensor, useCache: boolean, deadlineSeconds: number): Promise<Answer<'forward'>> {
    if (layer.generation !== this.worker?.generation) throw new BackendFailure('crashed', this.lastEnd, true);
    return await this.call('forward', [layer.handle, x, useCache], deadlineSeconds);
  }

  cancel(): void {
    if (this.worker)
      for (const pending of this.worker.pending.values()) this.giveWay(this.worker, pending, 'cancelled');
  }

  async close(): Promise<void> {
    this.closed = true;
    if (this.worker) this.retire(this.worker, 'cancelled', 'the worker was closed');
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise((resolve) => {
      timer = setTimeout(resolve, closeSeconds * 1000);
    });
    await Promise.race([Promise.all([...this.alive].map(({ ended }) => ended)), patience]);
    clearTimeout(timer);
  }

  /** About the machine, not about a point: where a kill costs a sweep one row, it costs a question a second worker, once. */
  private async ask<C extends Call>(call: C, args: Arguments<C>): Promise<Answer<C>> {
    try {
      return await this.call(call, args, ownDeadlineSeconds);
    } catch (error) {
      if (!(error instanceof BackendFailure) || error.kind !== 'crashed') throw error;
      return this.call(call, args, ownDeadlineSeconds);
    }
  }

  private call<C extends Call>(call: C, args: Arguments<C>, deadlineSeconds: number): Promise<Answer<C>> {
    if (this.closed) return Promise.reject(new BackendFailure('cancelled', 'the worker was closed', true));
    if (this.isLost()) return Promise.reject(new BackendFailure('crashed', lostDevice, true));
    const worker = this.worker ?? this.start();
    this.lastId += 1;
    const id = this.lastId;
    return new Promise<Answer<C>>((resolve, reject) => {
      const overdue = (): void => this.giveWay(worker, pending, 'timeout');
      const timer = setTimeout(overdue, deadlineSeconds * 1000);
      const pending: Pending = { call, deadlineSeconds, resolve, reject, timer };
      worker.pending.set(id, pending);
      worker.process.send({ id, generation: worker.generation, call, args } as Request);
    });
  }

  /** A process stuck in a driver outlives its kill and keeps the device: another one would only get stuck beside it. */
  private isLost(): boolean {
    const latest = performance.now() - this.endSeconds * 1000;
    return [...this.alive].some(({ retiredAt }) => retiredAt !== undefined && retiredAt < latest);
  }

  private start(): Worker {
    this.generations += 1;
    let gone: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => {
      gone = resolve;
    });
    const process = this.spawn({
      onMessage: (message) => this.receive(worker, message),
      onEnd: (how) => {
        this.alive.delete(worker);
        gone();
        this.retire(worker, 'crashed', how);
      },
    });
    const worker: Worker = { generation: this.generations, process, pending: new Map(), ended };
    this.alive.add(worker);
    this.worker = worker;
    return worker;
  }

  private receive(worker: Worker, message: unknown): void {
    if (worker !== this.worker) return; // retired: nothing it still says counts
    const reply = replySchema.safeParse(message);
    const pending = reply.success ? worker.pending.get(reply.data.id) : undefined;
    if (!reply.success) this.retire(worker, 'failed', 'worker sent a message that cannot be understood');
    else if (!pending || reply.data.generation !== worker.generation)
      this.retire(worker, 'failed', 'worker answered a question that was not asked');
    else if (reply.data.ok) this.succeed(worker, reply.data.id, pending, reply.data.value);
    else this.fail(worker, pending, reply.data);
  }

  private succeed(worker: Worker, id: number, pending: Pending, value: unknown): void {
    const answer = answerSchemas[pending.call].safeParse(value);
    if (!answer.success) {
      const [{ path, message }] = answer.error.issues;
      const where = [pending.call, ...path].join('.');
      this.retire(worker, 'failed', `worker answered with an impossible value in ${where}: ${message}`);
      return;
    }
    this.settle(worker, id, pending);
    if (pending.ending !== 'timeout') {
      pending.resolve(answer.data as never);
      return;
    }
    pending.reject(overdueFailure(pending, false));
    // It was built too late for anyone to use it.
    const prepares = pending.call === 'prepare' || pending.call === 'prepareModel';
    const late = prepares ? (answer.data as Answer<'prepare'>).handle : undefined;
    if (late !== undefined) this.call('release', [late], ownDeadlineSeconds).catch(() => undefined);
  }

  private fail(worker: Worker, pending: Pending, { id, code, message }: Extract<Reply, { ok: false }>): void {
    if (!Object.hasOwn(addonCodes, code)) {
      this.retire(worker, 'failed', `${message} (${code})`);
      return;
    }
    this.settle(worker, id, pending);
    if (pending.ending === 'timeout') pending.reject(overdueFailure(pending, false));
    else pending.reject(new BackendFailure(addonCodes[code as AddonErrorCode], message, false));
  }

  private settle(worker: Worker, id: number, pending: Pending): void {
    clearTimeout(pending.timer);
    worker.pending.delete(id);
  }

  /** Asks a call to give way; its process is killed if it does not. */
  private giveWay(worker: Worker, pending: Pending, reason: 'timeout' | 'cancelled'): void {
    if (pending.ending) return;
    pending.ending = reason;
    clearTimeout(pending.timer);
    worker.process.send({ call: 'cancel' });
    const kill = (): void => this.retire(worker, 'crashed', 'the worker was killed because another call did not end');
    pending.timer = setTimeout(kill, this.graceSeconds * 1000);
  }

  /** Ends a process that is gone, or that nothing may be believed from any more, and every call it still owes an answer. */
  private retire(worker: Worker, kind: FailureKind, message: string): void {
    if (worker !== this.worker) return;
    this.worker = undefined;
    this.lastEnd = message;
    worker.retiredAt = performance.now();
    worker.process.kill();
    for (const pending of worker.pending.values()) {
      clearTimeout(pending.timer);
      if (pending.ending === 'timeout') pending.reject(overdueFailure(pending, true));
      else pending.reject(new BackendFailure(pending.ending ?? kind, message, true));
    }
    worker.pending.clear();
  }
}

const lostDevice =
  'the device is lost: a worker did not end when it was killed; it comes back when that process is gone';

const overdueFailure = ({ deadlineSeconds }: Pending, killed: boolean): BackendFailure =>
  new BackendFailure(
    'timeout',
    `no result within ${Number(deadlineSeconds.toPrecision(3))} s${killed ? '; the worker did not stop and was killed' : ''}`,
    killed,
  );

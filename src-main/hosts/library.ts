/** One attention layer of an optimisation level, with a real cache, for use from code. */
import { expected } from '../contract/input-error.ts';
import { withNearest } from '../contract/nearest.ts';
import type { AxisValue, PointConfig } from '../contract/sweep.ts';
import { f32MhaBytes } from '../engine/estimate.ts';
import { resolvePoint } from '../engine/plan.ts';
import type { ForwardResult, Tensor } from '../worker/addon-types.ts';
import { workerScript } from '../worker/location.ts';
import { forkWorker } from '../worker/spawn.ts';
import { type Layer, Supervisor } from '../worker/supervisor.ts';

export interface FastMQAOptions {
  readonly hiddenDim: number;
  readonly numHeads: number;
  /** Name of an optimisation level; `baseline` caches everything in f32. */
  readonly level?: string;
  /** Longest sequence, in tokens. */
  readonly contextTokens?: number;
  /** Further axes of a sweep point, `referenceKvHeads` or `window` for example. */
  readonly axes?: Readonly<Record<string, AxisValue>>;
}

export interface ForwardOptions {
  /** Continue the sequence of earlier calls; otherwise a new one begins, which later calls may continue. */
  readonly useCache?: boolean;
}

const optionNames = ['hiddenDim', 'numHeads', 'level', 'contextTokens', 'axes'];

const deadlineSeconds = 600;

/**
 * @example
 * const layer = new FastMQA({ hiddenDim: 2048, numHeads: 32, level: 'balanced' });
 * const y = await layer.forward({ shape: [1, 512, 2048], data }, { useCache: true });
 * console.log(layer.cacheMultiplier, layer.memoryReductionPercent);
 */
export class FastMQA {
  private readonly resolve: (batch: number) => PointConfig;
  private readonly backend: Supervisor;
  private layer: (Layer & { readonly config: PointConfig }) | undefined;
  private cache: ForwardResult['cache'] | undefined;
  private tail: Promise<unknown> = Promise.resolve();

  /** @throws InputError for a level that does not exist, or that cannot exist on such a layer. */
  constructor(options: FastMQAOptions) {
    if (typeof options !== 'object' || options === null) throw expected('an object of options', 'FastMQA', options);
    const stray = Object.keys(options).find((name) => !optionNames.includes(name));
    if (stray !== undefined)
      throw expected(`one of ${optionNames.join(', ')}`, 'FastMQA', withNearest(optionNames, stray));
    const { hiddenDim, numHeads, level = 'balanced', contextTokens = 1024, axes = {} } = options;
    this.resolve = (batch) => {
      const { config, refused } = resolvePoint({
        hiddenDim,
        heads: numHeads,
        level,
        seqLen: contextTokens,
        batch,
        ...axes,
      });
      if (refused !== undefined) throw expected('a layer that can exist', 'FastMQA', refused);
      return config;
    };
    this.resolve(1);
    this.backend = new Supervisor({ spawn: forkWorker(workerScript) });
  }

  /**
   * The layer's output for tokens `x` [B, S, d], in the same shape. Calls are served in order.
   * @throws InputError for input that does not fit; BackendFailure where the engine fails, and then the cache is lost.
   */
  forward(x: Tensor, { useCache = false }: ForwardOptions = {}): Promise<Tensor> {
    const done = this.tail.then(() => this.forwardNow(x, useCache));
    this.tail = done.catch(() => undefined);
    return done;
  }

  /** Bytes the cache takes less than one of all heads in f32 would, as allocated; undefined before the first call. */
  get memoryReductionPercent(): number | undefined {
    return this.cacheMultiplier === undefined ? undefined : 100 * (1 - 1 / this.cacheMultiplier);
  }

  /** How many times smaller the cache is than one of all heads in f32, as allocated; undefined before the first call. */
  get cacheMultiplier(): number | undefined {
    if (!this.layer || !this.cache || this.cache.tokens === 0) return undefined;
    return f32MhaBytes({ ...this.layer.config, seqLen: this.cache.tokens }) / this.cache.kvAllocatedBytes;
  }

  /** Ends the process behind this layer. */
  close(): Promise<void> {
    return this.backend.close();
  }

  private async forwardNow(x: Tensor, useCache: boolean): Promise<Tensor> {
    if (!Array.isArray(x?.shape) || x.data === undefined) throw expected('{ shape, data }', 'x', typeof x);
    const [batch, tokens, width] = x.shape;
    const { hiddenDim, seqLen } = this.resolve(1);
    const fits = x.shape.length === 3 && batch > 0 && tokens > 0 && width === hiddenDim;
    if (!fits) throw expected(`[batch, tokens, ${hiddenDim}]`, 'shape of x', `[${x.shape.join(', ')}]`);
    if (x.data.length !== batch * tokens * width)
      throw expected(`${batch * tokens * width} values`, 'x', x.data.length);
    const wrong = x.data.find((value) => !Number.isFinite(value));
    if (wrong !== undefined) throw expected('finite values', 'x', wrong);
    if (useCache && this.cache && this.layer && this.layer.config.batch !== batch)
      throw expected(`the batch of what is cached, ${this.layer.config.batch},`, 'x', batch);
    const length = tokens + (useCache ? (this.cache?.tokens ?? 0) : 0);
    if (length > seqLen) throw expected(`at most ${seqLen} tokens, as contextTokens says,`, 'the sequence', length);
    try {
      const layer = await this.layerFor(batch);
      const { y, cache } = await this.backend.forward(layer, x, useCache, deadlineSeconds);
      this.cache = cache;
      return { shape: [...x.shape], data: y };
    } catch (error) {
      if (this.layer) await this.backend.release(this.layer).catch(() => undefined);
      this.layer = undefined;
      this.cache = undefined;
      throw error;
    }
  }

  private async layerFor(batch: number): Promise<Layer> {
    if (this.layer?.config.batch === batch) return this.layer;
    if (this.layer) await this.backend.release(this.layer);
    const config = this.resolve(batch);
    this.layer = { config, ...(await this.backend.createLayer(config, deadlineSeconds)) };
    return this.layer;
  }
}

/** The window's side of the contract: the table of calls as functions, over whatever bridge the host gives. */
import {
  type AppApi,
  type Bridge,
  type CallName,
  callNames,
  type FailureOf,
  type StreamListener,
} from '../../src-main/contract/calls.ts';

/** A call that was answered with a failure, in words meant for the user. */
export class CallError extends Error {
  readonly failure: FailureOf | 'unreachable';
  readonly subject: string | undefined;
  constructor(failure: FailureOf | 'unreachable', message: string, subject?: string) {
    super(message);
    this.failure = failure;
    this.subject = subject;
  }
}

export interface Client {
  readonly api: AppApi;
  /** @returns how to end it */
  subscribe(listener: StreamListener): () => void;
}

export function createClient(bridge: Bridge): Client {
  const invoke = async (name: CallName, input: unknown): Promise<unknown> => {
    const reply = await bridge.call(name, input).catch(() => {
      throw new CallError('unreachable', 'FastMQA does not answer: is it still running where it was started?');
    });
    if (reply.ok) return reply.value;
    throw new CallError(reply.failure, reply.message, reply.subject);
  };
  const api = Object.fromEntries(callNames.map((name) => [name, (input: unknown) => invoke(name, input)]));
  return { api: api as unknown as AppApi, subscribe: (listener) => bridge.subscribe(listener) };
}

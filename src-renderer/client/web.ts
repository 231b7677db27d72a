/** The bridge to the web host that served this page: calls as POST, events as server-sent events. */
import type { Bridge, Reply, StreamListener } from '../../src-main/contract/calls.ts';
import type { HubEvent } from '../../src-main/contract/run-state.ts';

export const webBridge: Bridge = {
  async call(name, input) {
    const response = await fetch(`/api/${name}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(input),
    });
    if (response.headers.get('Content-Type')?.startsWith('application/json')) return (await response.json()) as Reply;
    return { ok: false, failure: 'fault', message: (await response.text()).trim() };
  },

  subscribe(listener: StreamListener) {
    const source = new EventSource('/api/events');
    source.addEventListener('ready', ({ data }) => listener.onReady(Number(data)));
    source.addEventListener('message', ({ data }) => listener.onEvents(JSON.parse(data) as HubEvent[]));
    // Closed by the browser only when the host answered and refused us; otherwise it tries again by itself.
    source.addEventListener('error', () => listener.onLost(source.readyState === EventSource.CLOSED));
    return () => source.close();
  },
};

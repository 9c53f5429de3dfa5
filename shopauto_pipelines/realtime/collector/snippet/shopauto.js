/* Tells the collector what visitors of the shop do. docs/collector.md says how to use it.

   shopauto('product_view', {product_id: 'P101'})     an event; also search, add_to_cart, remove_from_cart, checkout_started
   shopauto('login', {shop_customer_id: 'c1', signature: '…'})     or {email: '…'}
   shopauto('form', {form: 'newsletter', email: '…', consent: {channel: 'email', wording: '…'}})
   shopauto('offer', function (offer) { … })          what this visitor is offered, or null
   shopauto('cart', function (id, browser) { … })     the cart's id, for the order, and the browser's
   shopauto('ordered')                                the order has taken the cart: the next one is another
   shopauto('consent', true)                          with data-consent="required": nothing is kept or sent before

   Events wait in the tab, at most 500, until they are stored; what is sent twice is stored once. */
(function () {
  'use strict';
  var me = document.currentScript, base = me.src.replace(/\/[^/]*$/, '');
  var waiting = window.shopauto && window.shopauto.q || [];
  var allowed = me.dataset.consent !== 'required' || get(localStorage, 'shopauto.consent') === 'yes';
  var held = [], timer = null, sending = false, wait = 1000, ahead = 0;

  // storage may be switched off: then things live as long as the page
  var memory = {};
  function get(store, key) { try { return store.getItem(key); } catch (_) { return memory && memory[key] || null; } }
  function set(store, key, value) { try { store.setItem(key, value); } catch (_) { memory[key] = value; } }
  function unset(store, key) { try { store.removeItem(key); } catch (_) { delete memory[key]; } }

  function random() {
    var bytes = crypto.getRandomValues(new Uint8Array(16)), text = '';
    for (var i = 0; i < 16; i++) text += (bytes[i] + 256).toString(16).slice(1);
    return text;
  }
  function id(store, key) {
    var known = get(store, key);
    if (!known) set(store, key, known = random());
    return known;
  }
  function queue() { try { return JSON.parse(get(sessionStorage, 'shopauto.queue')) || []; } catch (_) { return []; } }
  // an answer may come in after a visitor has said no: then nothing is kept
  function keep(entries) {
    if (allowed && entries.length) set(sessionStorage, 'shopauto.queue', JSON.stringify(entries.slice(-500)));
    else unset(sessionStorage, 'shopauto.queue');
  }

  function add(type, fields) {
    var entry = {event_id: random(), happened_at: Date.now(), type: type, url: location.href.split('#')[0].slice(0, 4000)};
    for (var name in fields) entry[name] = fields[name];
    if (!allowed) { held.push(entry); return; }
    entry.anonymous_id = id(localStorage, 'shopauto.id');
    entry.session_id = id(sessionStorage, 'shopauto.session');
    if (/cart|checkout/.test(type) && !entry.cart_id) entry.cart_id = id(localStorage, 'shopauto.cart');
    keep(queue().concat(entry));
    later(wait);
  }
  function later(time) { if (timer === null) timer = setTimeout(function () { timer = null; flush(); }, time); }
  function worded(entries) {
    return JSON.stringify(entries.map(function (entry) {
      // a visitor's clock may be wrong by hours: the collector's counts
      return Object.assign({}, entry, {happened_at: new Date(entry.happened_at + ahead).toISOString()});
    }));
  }
  function tell(detail) { document.dispatchEvent(new CustomEvent('shopauto', {detail: detail})); }

  function flush() {
    var entries = queue().slice(0, 50);
    if (sending || !entries.length) return;
    sending = true;
    post('/events', worded(entries), entries).then(function (status) {
      sending = false;
      if (status && status !== 429 && status < 500) {
        var done = {};
        entries.forEach(function (entry) { done[entry.event_id] = true; });
        keep(queue().filter(function (entry) { return !done[entry.event_id]; }));
        wait = 1000;
      } else {
        wait = Math.min(wait * 2, 60000);
      }
      if (queue().length) later(wait);
    });
  }
  function post(path, text, about) {
    // text/plain: the browser need not ask beforehand
    return fetch(base + path, {method: 'POST', body: text, keepalive: true, headers: {'Content-Type': 'text/plain'}})
      .then(function (answer) {
        var clock = Date.parse(answer.headers.get('Date')), off = clock - Date.now();
        // told wrong times: once more, with the right ones; what was stored is not stored again
        if (clock && Math.abs(off - ahead) > 60000) { ahead = off; return 0; }
        if (answer.status === 429) wait = 1000 * (answer.headers.get('Retry-After') || 1);
        return answer.json().then(function (told) {
          tell({path: path, status: answer.status, sent: about, answer: told});
          return answer.status;
        });
      })
      .catch(function () { tell({path: path, status: 0, sent: about, answer: null}); return 0; });
  }

  var special = {
    consent: function (yes) {
      allowed = yes === true;
      if (!allowed) {
        held = [];
        ['shopauto.id', 'shopauto.cart', 'shopauto.consent'].forEach(function (key) { unset(localStorage, key); });
        ['shopauto.queue', 'shopauto.session'].forEach(function (key) { unset(sessionStorage, key); });
        return;
      }
      set(localStorage, 'shopauto.consent', 'yes');
      held.splice(0).forEach(function (entry) { add(entry.type, entry); });
    },
    cart: function (use) {
      if (allowed) use(id(localStorage, 'shopauto.cart'), id(localStorage, 'shopauto.id')); else use(null, null);
    },
    ordered: function () { unset(localStorage, 'shopauto.cart'); },
    form: function (fields) {
      var entry = Object.assign({submission_id: random()}, fields);
      if (allowed) entry.anonymous_id = id(localStorage, 'shopauto.id');
      // who fills a form in has decided to send it
      (function send(tries) {
        post('/forms', JSON.stringify(entry), [entry]).then(function (status) {
          if ((!status || status === 429 || status >= 500) && tries) setTimeout(send, wait * 2, tries - 1);
        });
      })(5);
    },
    offer: function (use) {
      if (!allowed) { use(null); return; }
      fetch(base + '/offer?anonymous_id=' + id(localStorage, 'shopauto.id'))
        .then(function (answer) { return answer.json(); })
        .then(function (told) { tell({path: '/offer', status: 200, sent: null, answer: told}); use(told.offer || null); })
        .catch(function () { use(null); });
    }
  };
  function shopauto(what, more) { return special[what] ? special[what](more) : add(what, more); }

  addEventListener('pagehide', function () {
    var entries = queue().slice(0, 50);
    // what a beacon takes is as good as sent; the rest waits for the next page of this tab
    if (entries.length && navigator.sendBeacon(base + '/events', worded(entries))) keep(queue().slice(entries.length));
  });
  window.shopauto = shopauto;
  if (me.dataset.pageViews !== 'off') add('page_view');
  waiting.forEach(function (given) { shopauto.apply(null, given); });
  if (allowed) later(wait);
})();

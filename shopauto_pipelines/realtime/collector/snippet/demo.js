/* The page to try the collector with. The snippet does the work; this is what a shop's own page would do. */
(function () {
  'use strict';
  function $(id) { return document.getElementById(id); }
  var cart = new Map(), cartId = null;

  function newCart() { shopauto('cart', function (id) { cartId = id; $('cart-id').textContent = id; }); }

  function show() {
    $('cart').replaceChildren();
    cart.forEach(function (line, product) {
      var item = document.createElement('li'), out = document.createElement('button'), text = document.createElement('span');
      text.textContent = line.pieces + ' × ' + line.name;
      out.type = 'button';
      out.className = 'quiet';
      out.textContent = 'Take out';
      out.addEventListener('click', function () { change(product, line, -1); });
      item.append(text, out);
      $('cart').append(item);
    });
    $('empty').hidden = cart.size > 0;
    $('checkout').disabled = !cart.size;
    $('buy').disabled = !cart.size || 'off' in $('buy').dataset;
  }
  function change(product, line, pieces) {
    line.pieces += pieces;
    if (line.pieces) cart.set(product, line); else cart.delete(product);
    shopauto(pieces > 0 ? 'add_to_cart' : 'remove_from_cart', {product_id: product, quantity: 1});
    show();
  }
  function log(path, status, text) {
    var item = document.createElement('li'), code = document.createElement('span');
    code.className = 'status mono' + (status >= 200 && status < 300 ? '' : ' bad');
    code.textContent = status || 'no answer';
    item.append(code, ' ' + path + ' ', text);
    $('log').prepend(item);
  }
  function summary(answer) {
    if (!answer) return 'it is sent again';
    if (!('stored' in answer)) return JSON.stringify(answer);
    var reasons = answer.refused.map(function (one) { return one.reason; });
    return [answer.stored + ' stored', answer.repeated && answer.repeated + ' repeated', reasons.join('; ')].filter(Boolean).join(', ');
  }

  document.addEventListener('shopauto', function (told) {
    var types = (told.detail.sent || []).map(function (entry) { return entry.type || entry.form; });
    log(told.detail.path, told.detail.status, (types.length ? types.join(', ') + ': ' : '') + summary(told.detail.answer));
  });
  document.querySelectorAll('[data-add]').forEach(function (button) {
    button.addEventListener('click', function () {
      var line = cart.get(button.dataset.add) || {name: button.dataset.name, cents: +button.dataset.cents, pieces: 0};
      shopauto('product_view', {product_id: button.dataset.add});
      change(button.dataset.add, line, 1);
    });
  });
  $('checkout').addEventListener('click', function () { shopauto('checkout_started', {}); });
  $('buy').addEventListener('click', function () {
    var lines = Array.from(cart, function (pair) {
      return {product_id: pair[0], quantity: pair[1].pieces, unit_price_cents: pair[1].cents, amount_cents: pair[1].pieces * pair[1].cents};
    });
    var order = {
      order_id: 'demo-' + cartId.slice(0, 12),
      cart_id: cartId,
      total_cents: lines.reduce(function (sum, line) { return sum + line.amount_cents; }, 0),
      lines: lines
    };
    if ($('customer').value) order.shop_customer_id = $('customer').value;
    else if ($('email').value) order.email = $('email').value;
    fetch('orders', {method: 'POST', body: JSON.stringify(order)}).then(function (answer) {
      return answer.json().then(function (told) {
        log('/orders', answer.status, 'an order: ' + summary(told));
        if (!answer.ok) return;
        cart.clear();
        shopauto('ordered');
        newCart();
        show();
      });
    });
  });
  $('login').addEventListener('submit', function (submitted) {
    submitted.preventDefault();
    var who = {};
    if ($('customer').value) who.shop_customer_id = $('customer').value;
    if ($('signature') && $('signature').value) who.signature = $('signature').value;
    if ($('email').value) who.email = $('email').value;
    shopauto('login', who);
    if ($('news').checked) {
      shopauto('form', Object.assign({form: 'demo', consent: {channel: 'email', wording: 'Yes, send me news and offers.'}}, who));
    }
  });
  $('offer').addEventListener('click', function () { shopauto('offer', function () {}); });
  newCart();
  show();
})();
